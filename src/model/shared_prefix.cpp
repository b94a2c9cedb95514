#include "model/shared_prefix.h"

#include <algorithm>
#include <iterator>
#include <set>

namespace gqa {
namespace {

using Ids = std::span<const int32_t>;

int64_t common_prefix(Ids a, Ids b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

/// By ids, then by place in the file: the neighbours of a prompt are those most like it.
struct Lexicographic {
  std::span<const Ids> prompts;
  bool operator()(size_t a, size_t b) const {
    const auto order = std::lexicographical_compare_three_way(prompts[a].begin(), prompts[a].end(),
                                                              prompts[b].begin(), prompts[b].end());
    return order == 0 ? a < b : order < 0;
  }
};
using Neighbours = std::set<size_t, Lexicographic>;

/// The likest of some other prompts.
SharedPrefix most_alike(const Neighbours& others, std::span<const Ids> prompts, size_t i) {
  SharedPrefix best;
  const auto consider = [&](size_t j) {
    // The last token is computed anyway: its logits are wanted.
    const int64_t tokens =
        std::min(common_prefix(prompts[i], prompts[j]), std::ssize(prompts[i]) - 1);
    if (tokens > best.tokens) best = {.donor = j, .tokens = tokens};
  };
  const auto after = others.lower_bound(i);
  if (after != others.end()) consider(*after);
  if (after != others.begin()) consider(*std::prev(after));
  return best;
}

}  // namespace

std::vector<SharedPrefix> share_prefixes(std::span<const Ids> prompts, int64_t window) {
  std::vector<SharedPrefix> plan(prompts.size());
  const auto near = static_cast<size_t>(std::min(window, std::ssize(prompts)));
  Neighbours before(Lexicographic{prompts});
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (i > near) before.erase(i - near - 1);
    SharedPrefix share = most_alike(before, prompts, i);
    before.insert(i);
    if (share.tokens < least_shared) continue;
    while (true) {
      const SharedPrefix& donor = plan[*share.donor];
      if (!donor.donor || i - *donor.donor > near) break;
      const int64_t tokens = std::min(share.tokens, donor.tokens);
      if (share.tokens - tokens >= least_shared) break;
      share = {.donor = donor.donor, .tokens = tokens};
    }
    plan[i] = share;
  }
  for (size_t i = prompts.size(); i-- > 0;) {
    if (!plan[i].donor) continue;
    SharedPrefix& donor = plan[*plan[i].donor];
    plan[i].donor_needed_then = donor.needed;
    donor.needed = std::max(donor.needed, plan[i].tokens);
  }
  return plan;
}

}  // namespace gqa
