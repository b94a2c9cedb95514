#include "attention/backward_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/prefetch.h"
#include "core/half.h"
#include "kernels/load_row.h"

namespace gqa {
namespace {

constexpr float none = -std::numeric_limits<float>::infinity();

/// log(exp(lse) + exp(sink)).
float with_sink(float lse, float sink) {
  if (lse == none || sink == none) return lse;
  const double apart = std::abs(static_cast<double>(lse) - sink);
  return static_cast<float>(std::max(lse, sink) + std::log1p(std::exp(-apart)));
}

}  // namespace

void load_row_terms(const kernels::Table& kernels, const BackwardJob& job, const BackwardHead& head,
                    int64_t t_begin, int64_t t_end, const RowTerms& terms, float* scratch) {
  const auto i = static_cast<size_t>(head.item);
  const AttendBackwardItem& item = job.batch[i];
  const ItemShape& shape = job.shapes[i];
  const auto sinks = job.options.sinks;
  const AnyMutView<2>& lse = item.forward.lse;
  const int64_t stride = row_stride(shape.v_head_dim);
  std::fill_n(scratch, 2 * stride, 0.0f);
  const auto load = [&](const auto& x, int64_t t, int64_t h, float* row) {
    const int64_t begin = t * x.strides[0] + h * x.strides[1];
    kernels::load_row(kernels, x.data, x.dtype, begin, x.strides[2], shape.v_head_dim, row);
  };
  const int64_t first = shape.first_head(head.kv_head);
  const int64_t heads = shape.heads(head.kv_head);
  for (int64_t r = t_begin * heads; r < t_end * heads; ++r) {
    const int64_t t = r / heads;
    const int64_t h = first + r % heads;
    const float own = load_element(lse.data, DType::f32, t * lse.strides[0] + h * lse.strides[1]);
    if (t + tokens_ahead < t_end) {
      const AnyMutView<3>& out = item.forward.out;
      prefetch_row({out.data, out.dtype, out.shape, out.strides}, t + tokens_ahead, h);
      prefetch_row(item.d_out, t + tokens_ahead, h);
    }
    load(item.forward.out, t, h, scratch);
    load(item.d_out, t, h, scratch + stride);
    terms.lse[head.first_row + r] =
        with_sink(own, sinks.empty() ? none : sinks[static_cast<size_t>(h)]);
    terms.delta[head.first_row + r] =
        own == none ? 0.0f : kernels.dot(scratch, scratch + stride, stride);
  }
}

float sink_gradient(const BackwardJob& job, std::span<const BackwardHead> heads, int64_t q_head,
                    const RowTerms& terms) {
  const float sink = job.options.sinks[static_cast<size_t>(q_head)];
  double sum = 0;
  if (sink == none) return 0.0f;
  for (const BackwardHead& head : heads) {
    const ItemShape& shape = job.shapes[static_cast<size_t>(head.item)];
    const int64_t in_group = q_head - shape.first_head(head.kv_head);
    const int64_t group = shape.heads(head.kv_head);
    if (in_group < 0 || in_group >= group) continue;
    for (int64_t t = 0; t < shape.q_len; ++t) {
      const int64_t r = head.first_row + t * group + in_group;
      const double weight = std::exp(static_cast<double>(sink) - terms.lse[r]);
      if (terms.lse[r] != none) sum -= weight * terms.delta[r];
    }
  }
  return static_cast<float>(sum);
}

}  // namespace gqa
