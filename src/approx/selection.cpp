#include "approx/selection.h"

#include <algorithm>
#include <bit>

namespace gqa {
namespace {

/// Tokens that choose together: their queries make one small product.
constexpr int64_t together = 16;

/// Keys of positions [0, position] whose bits are set.
int64_t count_keys(const uint64_t* words, int64_t position) {
  int64_t n = 0;
  for (int64_t b = 0; b <= position / 64; ++b) {
    const int64_t seen = position - b * 64 + 1;
    n += std::popcount(seen >= 64 ? words[b] : words[b] & ((uint64_t{1} << seen) - 1));
  }
  return n;
}

}  // namespace

void Choosing::attend(const Call& call, Tally& tally) {
  tally.select([&] { prepare(call); });
  std::vector<int64_t> chosen;
  for (int64_t first = 0; first < call.q_len(); first += slice_tokens) {
    const int64_t n = std::min(slice_tokens, call.q_len() - first);
    Selection selection(call, first, n);
    chosen.resize(static_cast<size_t>(n * call.kv_heads()));
    const int64_t lots = ceil_div(n, together);
    tally.select([&] {
      call.pool().parallel_for(lots * call.kv_heads(), [&](int64_t i, int thread) {
        const int64_t kv_head = i / lots;
        const int64_t t = i % lots * together;
        choose(call, kv_head, first + t, std::min(together, n - t), thread, selection,
               chosen.data() + kv_head * n + t);
      });
    });
    const AttendItem item = call.tokens(first, n, selection.view());
    tally.attend([&] {
      gqa::attend(call.context, std::span(&item, 1), call.attend_options({.causal = true}));
    });
    for (int64_t g = 0; g < call.kv_heads(); ++g) {
      for (int64_t t = 0; t < n; ++t) {
        const int64_t position = call.position(first + t);
        tally.add(call, position + 1, count_keys(selection.words(first + t, g), position),
                  choice_bytes(call, position));
        tally.chose(chosen[static_cast<size_t>(g * n + t)]);
      }
    }
  }
}

}  // namespace gqa
