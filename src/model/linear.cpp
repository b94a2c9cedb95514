#include "model/linear.h"

#include <algorithm>

#include "core/checked.h"
#include "model/ops.h"

namespace gqa {
namespace {

/// Whether a product takes so long that waking threads pays, also where they wait for a core that
/// others use. Reading a weight from memory takes about as long as 32 multiply-adds; ten million of
/// these some 80 microseconds.
bool worth_threads(const Linear& layer, int64_t rows) {
  return static_cast<double>(layer.in) * static_cast<double>(layer.out) *
             static_cast<double>(rows + 32) >=
         1e7;
}

/// Outputs of one job: many, since each job copies its inputs; fewer where threads would idle.
constexpr int64_t most_outputs = 256;
constexpr int64_t least_outputs = 32;

}  // namespace

std::array<std::span<const std::byte>, 2> Linear::memory() const {
  const auto bytes = [](const void* data, int64_t n) {
    return std::span(static_cast<const std::byte*>(data), static_cast<size_t>(n));
  };
  if (scales == nullptr) return {bytes(weight, out * in * dtype_bytes(dtype)), {}};
  const auto scale_bytes = static_cast<int64_t>(sizeof(float));
  return {bytes(weight, out * in), bytes(scales, out * kernels::int8_blocks(in) * scale_bytes)};
}

void linear(Context::Impl& context, const Linear& layer, const float* x, int64_t rows, float* y) {
  if (rows == 0) return;
  const int threads = worth_threads(layer, rows) ? context.pool.n_threads() : 1;
  const int64_t blocks = ceil_div(rows, kernels::dense_rows);
  const int64_t block = round_up(ceil_div(rows, blocks), kernels::dense_tile);
  int64_t outputs = most_outputs;
  while (threads > 1 && outputs > least_outputs &&
         blocks * ceil_div(layer.out, outputs) < 4 * threads) {
    outputs /= 2;
  }
  float* scratch = context.scratch<float>(Scratch::dense, kernels::dense_scratch * threads);
  const auto job = [&](int64_t i, int thread) {
    const int64_t row = i % blocks * block;
    const int64_t n = std::min(rows - row, block);
    const int64_t begin = i / blocks * outputs;
    const int64_t end = std::min(layer.out, begin + outputs);
    float* to = y + row * layer.out;
    const float* from = x + row * layer.in;
    float* mine = scratch + thread * kernels::dense_scratch;
    if (layer.scales == nullptr) {
      context.kernels->dense(layer.dtype, layer.weight, layer.in, begin, end, from, layer.in, n, to,
                             layer.out, mine);
    } else {
      context.kernels->dense_int8(static_cast<const int8_t*>(layer.weight), layer.scales, layer.in,
                                  begin, end, from, layer.in, n, to, layer.out, mine);
    }
    if (layer.bias.empty()) return;
    for (int64_t r = 0; r < n; ++r)
      add(to + r * layer.out + begin, layer.bias.data() + begin, end - begin);
  };
  const int64_t jobs = blocks * ceil_div(layer.out, outputs);
  if (threads == 1) {
    for (int64_t i = 0; i < jobs; ++i) job(i, 0);
  } else {
    context.pool.parallel_for(jobs, job);
  }
}

}  // namespace gqa
