#include "tokenizer/joins.h"

#include <algorithm>
#include <unordered_map>

namespace gqa {
namespace {

/// Merges come in the order in which they were learnt, so one pass and one to see that nothing
/// changes do; files that need more are odd and get no cuts.
constexpr int kMaxPasses = 4;
constexpr size_t kMaxEnds = 16;

/// The symbols that a token may begin or end with: more than one only where its characters can also
/// be read as the name of a byte.
using Ends = std::unordered_map<int32_t, std::vector<int32_t>>;

bool add_all(const std::vector<int32_t>& from, std::vector<int32_t>& to) {
  bool changed = false;
  for (const int32_t symbol : from) {
    if (std::find(to.begin(), to.end(), symbol) != to.end()) continue;
    to.push_back(symbol);
    changed = true;
  }
  return changed;
}

/// Whether the ends of all tokens are known after it.
bool find_ends(std::span<const MergeIds> merges, Ends& first, Ends& last) {
  for (int pass = 0; pass < kMaxPasses; ++pass) {
    bool changed = false;
    for (const MergeIds& m : merges) {
      // Copies, as the result may be one of the two itself.
      const std::vector<int32_t> begins = first[m.left], ends = last[m.right];
      changed |= add_all(begins, first[m.result]);
      changed |= add_all(ends, last[m.result]);
      if (first[m.result].size() > kMaxEnds || last[m.result].size() > kMaxEnds) return false;
    }
    if (!changed) return true;
  }
  return false;
}

}  // namespace

Joins::Joins(std::span<const MergeIds> merges, std::span<const int32_t> symbols) {
  Ends first;
  for (const int32_t symbol : symbols) first[symbol] = {symbol};
  Ends last = first;
  known_ = find_ends(merges, first, last);
  if (!known_) return;
  for (const MergeIds& m : merges) {
    for (const int32_t left : last[m.left]) {
      for (const int32_t right : first[m.right]) pairs_.insert(pair_key(left, right));
    }
  }
}

bool Joins::may_join(int32_t left, int32_t right) const {
  return !known_ || pairs_.contains(pair_key(left, right));
}

}  // namespace gqa
