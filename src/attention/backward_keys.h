// The rows of a chunk's keys and values, wherever they lie.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attention/blocks.h"
#include "attention/plan.h"
#include "gqa/attention_backward.h"
#include "kernels/load_row.h"

namespace gqa {

/// Those of one KV head.
class ChunkKeys {
 public:
  ChunkKeys(const kernels::Table& kernels, const AttendBackwardItem& item, const ItemShape& shape,
            int64_t kv_head, int64_t chunk)
      : kernels_(kernels),
        kv_(std::get<StridedKv>(item.forward.kv)),
        shape_(shape),
        kv_head_(kv_head),
        first_block_(chunk * chunk_blocks) {}

  const StridedKv& kv() const { return kv_; }
  int64_t first_block() const { return first_block_; }

  /// The sequence's keys among those of block i of the chunk.
  kernels::Range in_block(int64_t i) const {
    const int64_t first = (first_block_ + i) * kernels::key_block;
    const auto within = [&](int64_t s) {
      return static_cast<int32_t>(std::clamp<int64_t>(s - first, 0, kernels::key_block));
    };
    return {within(shape_.keys.first), within(shape_.keys.len)};
  }
  /// Where key s of block i begins in an array of pages.
  template <typename View>
  int64_t begin_of(const View& x, int64_t i, int64_t s) const {
    return paged_row(x, kv_.pages, (first_block_ + i) * kernels::key_block + s, kv_head_);
  }
  /// row [stride] = key s of block i in x, as f32; zeros behind it, and for what is no key.
  void read(const AnyView<4>& x, int64_t i, int64_t s, int64_t stride, float* row) const {
    const kernels::Range have = in_block(i);
    const bool is_key = s >= have.begin && s < have.end;
    if (is_key) {
      kernels::load_row(kernels_, x.data, x.dtype, begin_of(x, i, s), x.strides[3], x.shape[3],
                        row);
    }
    std::fill(row + (is_key ? x.shape[3] : 0), row + stride, 0.0f);
  }

 private:
  const kernels::Table& kernels_;
  const StridedKv& kv_;
  const ItemShape& shape_;
  int64_t kv_head_, first_block_;
};

}  // namespace gqa
