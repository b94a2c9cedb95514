// Key blocks as the kernels want them, from wherever keys and values lie.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attention/shape.h"
#include "kernels/kernels.h"
#include "kv/pages.h"

namespace gqa {

/// Strided keys are transposed this many at a time, so that stores fill whole cache lines.
inline constexpr int64_t transpose_rows = 16;

/// Floats of scratch that load_keys() needs: the block, and rows on their way into it; what the
/// kernels arrange takes less, but for small heads.
constexpr int64_t keys_scratch(int64_t head_dim) {
  return (kernels::key_block + transpose_rows) * std::max<int64_t>(head_dim, 16);
}

/// A block of keys or values as the kernels take it, and the keys' scales.
struct Operand : kernels::BlockWords {
  const float* scales;  ///< [key_block], or null
  int64_t columns;      ///< of words
};

/// Where the elements of [token s, head, :] begin in a paged array.
template <typename View>
int64_t paged_row(const View& x, std::span<const int32_t> pages, int64_t s, int64_t head) {
  const int64_t logical = s / x.shape[1];
  const int64_t page = pages.empty() ? logical : pages[static_cast<size_t>(logical)];
  return page * x.strides[0] + s % x.shape[1] * x.strides[1] + head * x.strides[2];
}

/// One block of a KV head.
struct KvBlock {
  int64_t number;
  const std::byte* part;  ///< where a cache holds its keys and values; null for other arrays, or
                          ///< where the cache does not hold it
};

/// Keys and values of one KV head, block by block, from wherever they lie. What all blocks have in
/// common is found once, and little is left for each: a call passes thousands of them.
class KvBlocks {
 public:
  KvBlocks(const kernels::Table& kernels, const Kv& kv, int64_t kv_head);

  KvBlock at(int64_t number) const {
    const bool held = layer_ && layer_->holds(number);
    return {number, held ? layer_->part(number, kv_head_).data() : nullptr};
  }
  /// Where a cache holds the keys or the values of a block, or nothing.
  kernels::Ahead::Piece cached_keys(const KvBlock& b) const { return cached(keys_, b); }
  kernels::Ahead::Piece cached_values(const KvBlock& b) const { return cached(values_, b); }

  /// Keys [begin, end) of one block [head_dim][key_block]: in place where a cache holds them in f32
  /// or, if `as_stored`, in whatever type, else as f32 in `scratch` [keys_scratch]; where the
  /// kernels take them as stored, as they arrange them for so many rows. The other keys are without
  /// meaning.
  Operand keys(const KvBlock& b, kernels::Range keys, int64_t rows, bool as_stored,
               float* scratch) const {
    if (strided_) return strided_keys(b.number, keys, scratch);
    return stored(keys_, b, {0, static_cast<int32_t>(keys_.depth)}, rows, as_stored, scratch);
  }
  /// Values [begin, end) of one block [key_block][columns]: in place likewise, if a row of them is
  /// a whole number of vectors, else as f32 in `scratch` [key_block][row_stride] with zeros behind
  /// v_head_dim. Other rows are without meaning.
  Operand values(const KvBlock& b, kernels::Range keys, int64_t rows, bool as_stored,
                 float* scratch) const {
    if (strided_) return strided_values(b.number, keys, scratch);
    return stored(values_, b, keys, rows, as_stored, scratch);
  }

 private:
  /// The keys or the values of each block of a cache.
  struct Matrix {
    int64_t at = 0;     ///< bytes from the beginning of a page's part of a head
    int64_t bytes = 0;  ///< with the scales, which lie first
    int64_t depth = 0, columns = 0;
    int64_t padded = 0;  ///< columns of what is unpacked
    WordOrder order = {}, unpacked = {};
  };

  static kernels::Ahead::Piece cached(const Matrix& matrix, const KvBlock& b) {
    if (!b.part) return {};
    return {reinterpret_cast<const char*>(b.part + matrix.at), matrix.bytes};
  }
  /// Rows `depth` of it, if any must be unpacked.
  Operand stored(const Matrix& matrix, const KvBlock& b, kernels::Range depth, int64_t rows,
                 bool as_stored, float* scratch) const {
    const std::byte* part = b.part + matrix.at;
    const float* scales = scale_bytes_ != 0 ? reinterpret_cast<const float*>(part) : nullptr;
    const std::byte* words = part + scale_bytes_;
    const int64_t columns = matrix.columns;
    if (takes_stored_) {
      return {kernels_.arrange(type_, words, matrix.order, matrix.depth, columns, rows, scratch),
              scales, columns};
    }
    const bool in_place = (as_stored || type_ == KvDType::f32) && matrix.padded == columns;
    if (in_place) return {{words, type_, matrix.order}, scales, columns};
    kernels_.unpack(type_, words, matrix.order, depth, columns, matrix.unpacked, scratch);
    return {{scratch, KvDType::f32, matrix.unpacked}, scales, matrix.padded};
  }
  Operand strided_keys(int64_t block, kernels::Range keys, float* scratch) const;
  Operand strided_values(int64_t block, kernels::Range keys, float* scratch) const;

  const kernels::Table& kernels_;
  int64_t kv_head_;
  const StridedKv* strided_;
  const detail::KvLayer* layer_ = nullptr;  ///< of a cache
  KvDType type_ = KvDType::f32;
  bool takes_stored_ = false;
  int64_t scale_bytes_ = 0;
  Matrix keys_, values_;
};

}  // namespace gqa
