#include "model/rows.h"

#include "model/ops.h"

namespace gqa {

void embed_rows(Context::Impl& context, const Linear& table, std::span<const int32_t> ids,
                float* out) {
  const int64_t row_bytes = table.in * dtype_bytes(table.dtype);
  const auto* rows = static_cast<const char*>(table.weight);
  for (const int32_t id : ids) {
    context.kernels->decode(table.dtype, rows + id * row_bytes, table.in, out);
    out += table.in;
  }
}

void norm_rows(Context::Impl& context, std::span<const float> weight, double eps, int64_t rows,
               const float* x, float* y) {
  const int64_t width = std::ssize(weight);
  for_rows(context, rows,
           [&](int64_t r) { rms_norm(x + r * width, weight.data(), width, eps, y + r * width); });
}

void add_rows(Context::Impl& context, int64_t rows, int64_t width, float* hidden,
              const float* update) {
  for_rows(context, rows, [&](int64_t r) { add(hidden + r * width, update + r * width, width); });
}

void mlp_rows(Context::Impl& context, const LayerWeights& layer, int64_t rows, const float* normed,
              float* gate, float* up, float* out) {
  const int64_t width = layer.gate.out;
  linear(context, layer.gate, normed, rows, gate);
  linear(context, layer.up, normed, rows, up);
  for_rows(context, rows,
           [&](int64_t r) { silu_multiply(gate + r * width, up + r * width, width); });
  linear(context, layer.down, gate, rows, out);
}

}  // namespace gqa
