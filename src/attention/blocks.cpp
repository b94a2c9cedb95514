#include "attention/blocks.h"

#include <algorithm>

#include "kernels/load_row.h"
#include "kv/pages.h"

namespace gqa {
namespace {

using kernels::key_block;

/// Copies [token s, head, :] of a paged strided array as f32.
void read_row(const kernels::Table& kernels, const AnyView<4>& x, std::span<const int32_t> pages,
              int64_t s, int64_t head, float* out) {
  kernels::load_row(kernels, x.data, x.dtype, paged_row(x, pages, s, head), x.strides[3],
                    x.shape[3], out);
}

void load_strided_keys(const kernels::Table& kernels, const StridedKv& kv, int64_t kv_head,
                       int64_t block, kernels::Range keys, int64_t head_dim, float* out) {
  float* rows = out + head_dim * key_block;
  for (int64_t s0 = 0; s0 < key_block; s0 += transpose_rows) {
    for (int64_t s = 0; s < transpose_rows; ++s) {
      float* row = rows + s * head_dim;
      if (s0 + s >= keys.begin && s0 + s < keys.end) {
        read_row(kernels, kv.k, kv.pages, block * key_block + s0 + s, kv_head, row);
      } else {
        std::fill(row, row + head_dim, 0.0f);
      }
    }
    for (int64_t d = 0; d < head_dim; ++d) {
      for (int64_t s = 0; s < transpose_rows; ++s) {
        out[d * key_block + s0 + s] = rows[s * head_dim + d];
      }
    }
  }
}

}  // namespace

kernels::Ahead::Piece cached_part(const Kv& kv, int64_t kv_head, int64_t block, bool keys) {
  const auto* packed = std::get_if<PackedKv>(&kv);
  if (!packed || !packed->layer().holds(block)) return {};
  const detail::KvLayer& layer = packed->layer();
  const std::span<const std::byte> part =
      keys ? layer.key_part(block, kv_head) : layer.value_part(block, kv_head);
  return {reinterpret_cast<const char*>(part.data()), std::ssize(part)};
}

Operand load_keys(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, int64_t block,
                  kernels::Range keys, int64_t head_dim, int64_t rows, bool as_stored,
                  float* scratch) {
  if (const auto* strided = std::get_if<StridedKv>(&kv)) {
    load_strided_keys(kernels, *strided, kv_head, block, keys, head_dim, scratch);
    return {{scratch, KvDType::f32, WordOrder::rows(key_block)}, nullptr, key_block};
  }
  const detail::KvLayer& layer = std::get<PackedKv>(kv).layer();
  const KvDType t = layer.dtype;
  const std::byte* stored = layer.keys(block, kv_head);
  const WordOrder order = layer.key_order();
  const float* scales = is_quantised(t) ? layer.key_scales(block, kv_head) : nullptr;
  if (kernels.takes_stored(t)) {
    return {kernels.arrange(t, stored, head_dim, key_block, rows, scratch), scales, key_block};
  }
  if (as_stored || t == KvDType::f32) return {{stored, t, order}, scales, key_block};
  kernels.unpack(t, stored, order, {0, static_cast<int32_t>(head_dim)}, key_block, key_block,
                 scratch);
  return {{scratch, KvDType::f32, WordOrder::rows(key_block)}, scales, key_block};
}

Operand load_values(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, int64_t block,
                    kernels::Range keys, int64_t v_head_dim, int64_t rows, bool as_stored,
                    float* scratch) {
  const int64_t stride = row_stride(v_head_dim);
  if (const auto* strided = std::get_if<StridedKv>(&kv)) {
    for (int64_t s = keys.begin; s < keys.end; ++s) {
      float* row = scratch + s * stride;
      read_row(kernels, strided->v, strided->pages, block * key_block + s, kv_head, row);
      std::fill(row + v_head_dim, row + stride, 0.0f);
    }
    return {{scratch, KvDType::f32, WordOrder::rows(stride)}, nullptr, stride};
  }
  const detail::KvLayer& layer = std::get<PackedKv>(kv).layer();
  const KvDType t = layer.dtype;
  const std::byte* stored = layer.values(block, kv_head);
  const WordOrder order = layer.value_order();
  const float* scales = is_quantised(t) ? layer.value_scales(block, kv_head) : nullptr;
  if (kernels.takes_stored(t)) {
    return {kernels.arrange(t, stored, key_block, v_head_dim, rows, scratch), scales, v_head_dim};
  }
  const bool in_place = (as_stored || t == KvDType::f32) && stride == v_head_dim;
  if (in_place) return {{stored, t, order}, scales, v_head_dim};
  kernels.unpack(t, stored, order, keys, v_head_dim, stride, scratch);
  return {{scratch, KvDType::f32, WordOrder::rows(stride)}, scales, stride};
}

}  // namespace gqa
