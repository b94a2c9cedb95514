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
  const int64_t logical = s / x.shape[1];
  const int64_t page = pages.empty() ? logical : pages[static_cast<size_t>(logical)];
  const int64_t base = page * x.strides[0] + s % x.shape[1] * x.strides[1] + head * x.strides[2];
  kernels::load_row(kernels, x.data, x.dtype, base, x.strides[3], x.shape[3], out);
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

kernels::Ahead keys_ahead(const Kv& kv, int64_t kv_head, int64_t block) {
  const auto* packed = std::get_if<PackedKv>(&kv);
  if (!packed || !packed->layer().holds(block)) return {};
  const detail::KvLayer& layer = packed->layer();
  return {layer.keys(block, kv_head), layer.head_dim * layer.row_bytes(key_block)};
}

kernels::Ahead values_ahead(const Kv& kv, int64_t kv_head, int64_t block) {
  const auto* packed = std::get_if<PackedKv>(&kv);
  if (!packed || !packed->layer().holds(block)) return {};
  const detail::KvLayer& layer = packed->layer();
  return {layer.values(block, kv_head), key_block * layer.row_bytes(layer.v_head_dim)};
}

Operand load_keys(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, int64_t block,
                  kernels::Range keys, int64_t head_dim, bool as_stored, float* scratch) {
  if (const auto* strided = std::get_if<StridedKv>(&kv)) {
    load_strided_keys(kernels, *strided, kv_head, block, keys, head_dim, scratch);
    return {scratch, DType::f32};
  }
  const detail::KvLayer& layer = std::get<PackedKv>(kv).layer();
  const std::byte* stored = layer.keys(block, kv_head);
  if (is_quantised(layer.dtype)) {
    const float* scales = layer.key_scales(block, kv_head);
    kernels.dequantise_columns(layer.dtype, stored, head_dim, scales, scratch);
    return {scratch, DType::f32};
  }
  const DType type = element_dtype(layer.dtype);
  if (as_stored || type == DType::f32) return {stored, type};
  kernels.decode(type, stored, head_dim * key_block, scratch);
  return {scratch, DType::f32};
}

Operand load_values(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, int64_t block,
                    kernels::Range keys, int64_t v_head_dim, bool as_stored, float* scratch) {
  const int64_t stride = row_stride(v_head_dim);
  const auto* strided = std::get_if<StridedKv>(&kv);
  const detail::KvLayer* layer = strided ? nullptr : &std::get<PackedKv>(kv).layer();
  const bool quantised = layer && is_quantised(layer->dtype);
  const std::byte* stored = layer ? layer->values(block, kv_head) : nullptr;
  if (layer && !quantised && stride == v_head_dim) {
    const DType type = element_dtype(layer->dtype);
    if (as_stored || type == DType::f32) return {stored, type};
  }
  const int64_t row_bytes = layer ? layer->row_bytes(v_head_dim) : 0;
  for (int64_t s = keys.begin; s < keys.end; ++s) {
    float* row = scratch + s * stride;
    if (strided) {
      read_row(kernels, strided->v, strided->pages, block * key_block + s, kv_head, row);
    } else if (quantised) {
      const float scale = layer->value_scales(block, kv_head)[s];
      kernels.dequantise_row(layer->dtype, stored + s * row_bytes, v_head_dim, scale, row);
    } else {
      kernels.decode(element_dtype(layer->dtype), stored + s * row_bytes, v_head_dim, row);
    }
    std::fill(row + v_head_dim, row + stride, 0.0f);
  }
  return {scratch, DType::f32};
}

}  // namespace gqa
