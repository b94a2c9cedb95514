// What a variant is asked for: the query tokens of one sequence and layer.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/checked.h"
#include "gqa/approx.h"
#include "gqa/attention.h"
#include "kernels/context.h"
#include "kernels/load_row.h"
#include "kv/pages.h"

namespace gqa {

/// Query tokens [t, t + n) of a view.
template <typename View>
View tokens_of(const View& view, int64_t t, int64_t n) {
  using Bytes = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>,
                                   const std::byte, std::byte>;
  View part = view;
  part.shape[0] = n;
  part.data = static_cast<Bytes*>(view.data) + t * view.strides[0] * dtype_bytes(view.dtype);
  return part;
}

struct Call {
  Context& context;
  const KvCache& cache;
  int64_t layer;
  const Approximation::Item& item;
  const Approximation::Options& options;
  PackedKv kv = cache.view(item.sequence, layer);

  int64_t q_len() const { return item.q.shape[0]; }
  int64_t q_heads() const { return item.q.shape[1]; }
  int64_t kv_heads() const { return kv.layer().kv_heads; }
  int64_t head_dim() const { return kv.layer().head_dim; }
  int64_t v_head_dim() const { return kv.layer().v_head_dim; }
  int64_t len() const { return kv.len(); }
  /// Position of query token t.
  int64_t position(int64_t t) const { return len() - q_len() + t; }
  float scale() const {
    return options.scale.value_or(1.0f / std::sqrt(static_cast<float>(head_dim())));
  }
  const kernels::Table& kernels() const { return *context.impl().kernels; }
  ThreadPool& pool() const { return context.impl().pool; }

  int64_t first_head(int64_t kv_head) const {
    return options.group_offsets.empty() ? q_heads() / kv_heads() * kv_head
                                         : options.group_offsets[static_cast<size_t>(kv_head)];
  }
  int64_t heads(int64_t kv_head) const { return first_head(kv_head + 1) - first_head(kv_head); }

  /// out [head_dim] = the query of token t and head h.
  void load_query(int64_t t, int64_t h, float* out) const {
    const AnyView<3>& q = item.q;
    kernels::load_row(kernels(), q.data, q.dtype, t * q.strides[0] + h * q.strides[1], q.strides[2],
                      head_dim(), out);
  }

  /// Bytes of a key and its value of one KV head.
  int64_t token_bytes() const {
    const KvDType t = kv.layer().dtype;
    return kv_vector_bytes(t, head_dim()) + kv_vector_bytes(t, v_head_dim());
  }

  /// Exact attention of query tokens [t, t + n), to the selected keys of those that `mask` lets
  /// them see.
  AttendItem tokens(int64_t t, int64_t n, const KeySelection& selected) const {
    return {.q = tokens_of(item.q, t, n),
            .kv = kv,
            .out = tokens_of(item.out, t, n),
            .q_start = position(t),
            .selected = selected};
  }
  AttendOptions attend_options(const Mask& mask) const {
    return {.scale = options.scale, .mask = mask, .group_offsets = options.group_offsets};
  }
};

}  // namespace gqa
