// Key blocks as the kernels want them, from wherever keys and values lie.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attention/shape.h"
#include "kernels/kernels.h"

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

/// Where a cache holds keys or values of a block and KV head; nothing for other arrays, or where
/// the cache does not hold the block.
kernels::Ahead::Piece cached_part(const Kv& kv, int64_t kv_head, int64_t block, bool keys);

/// Keys [begin, end) of one block and KV head [head_dim][key_block]: in place where a cache holds
/// them in f32 or, if `as_stored`, in whatever type, else as f32 in `scratch` [keys_scratch]; where
/// the kernels take them as stored, as they arrange them for so many rows. The other keys are
/// without meaning.
Operand load_keys(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, int64_t block,
                  kernels::Range keys, int64_t head_dim, int64_t rows, bool as_stored,
                  float* scratch);

/// Values [begin, end) of one block and KV head [key_block][columns]: in place likewise, if a row
/// of them is a whole number of vectors, else as f32 in `scratch` [key_block][row_stride] with
/// zeros behind v_head_dim. Other rows are without meaning.
Operand load_values(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, int64_t block,
                    kernels::Range keys, int64_t v_head_dim, int64_t rows, bool as_stored,
                    float* scratch);

}  // namespace gqa
