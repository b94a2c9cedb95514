// Where a text can be cut without changing what byte-pair encoding makes of it.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_set>
#include <vector>

namespace gqa {

/// Two tokens that become one.
struct MergeIds {
  int32_t left = 0, right = 0, result = 0;
};

/// The pairs of neighbours that some merge, sooner or later, could bring into one token. Between
/// all others a text falls into parts that are encoded on their own: a document into about its
/// words.
class Joins {
 public:
  Joins() = default;
  /// `symbols`: the tokens that a text starts out as.
  Joins(std::span<const MergeIds> merges, std::span<const int32_t> symbols);
  bool may_join(int32_t left, int32_t right) const;

 private:
  bool known_ = false;  ///< false: any pair
  std::unordered_set<uint64_t> pairs_;
};

/// Two ids as one key.
inline uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

}  // namespace gqa
