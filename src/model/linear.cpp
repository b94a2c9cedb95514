#include "model/linear.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.h>
#include <algorithm>

#include "core/checked.h"
#include "core/fail.h"
#include "model/ops.h"

namespace gqa {
namespace {

/// Up to this many rows a product is bound by reading its weights.
constexpr int64_t few_rows = 8;
/// Output columns of one job: fixed, so that cutting up the work changes no bit.
constexpr int64_t panel = 256;
/// Below this many multiply-adds, waking threads costs more than they give.
constexpr double worth_threads = 2e5;

/// Our pool cuts up the work; the library's own threads would only compete with it. Its setting is
/// per thread and may be the host program's: it is put back.
class OneLibraryThread {
 public:
  OneLibraryThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneLibraryThread() { omp_set_num_threads(before_); }
  OneLibraryThread(const OneLibraryThread&) = delete;
  OneLibraryThread& operator=(const OneLibraryThread&) = delete;

 private:
  int before_;
};

const void* row(const Linear& layer, int64_t o) {
  return static_cast<const char*>(layer.weight) + o * layer.in * dtype_bytes(layer.dtype);
}

void sgemm_panel(const kernels::Table& kernels, const Linear& layer, const float* x, int64_t rows,
                 int64_t begin, int64_t end, float* decoded, float* y) {
  const auto* weights = static_cast<const float*>(row(layer, begin));
  if (layer.dtype != DType::f32) {
    kernels.decode(layer.dtype, row(layer, begin), (end - begin) * layer.in, decoded);
    weights = decoded;
  }
  const OneLibraryThread one;
  const dnnl_status_t status = dnnl_sgemm('N', 'T', rows, end - begin, layer.in, 1.0f, x, layer.in,
                                          weights, layer.in, 0.0f, y + begin, layer.out);
  if (status != dnnl_success) {
    fail(ErrorKind::resources, "a product of {} x {} by {} failed: oneDNN status {}", rows,
         layer.in, end - begin, static_cast<int>(status));
  }
}

}  // namespace

void linear(Context::Impl& context, const Linear& layer, const float* x, int64_t rows, float* y) {
  if (rows == 0) return;
  const kernels::Table& kernels = *context.kernels;
  const bool few = rows <= few_rows;
  float* decoded = nullptr;
  if (!few) {
    if (layer.dtype != DType::f32) {
      decoded =
          context.scratch<float>(Scratch::dense_panel, panel * layer.in * context.pool.n_threads());
    }
  }
  const auto job = [&](int64_t i, int thread) {
    const int64_t begin = i * panel;
    const int64_t end = std::min(layer.out, begin + panel);
    if (few) {
      kernels.few_rows(layer.dtype, layer.weight, layer.in, begin, end, x, layer.in, rows, y,
                       layer.out);
    } else {
      float* mine = decoded ? decoded + thread * panel * layer.in : nullptr;
      sgemm_panel(kernels, layer, x, rows, begin, end, mine, y);
    }
    if (layer.bias.empty()) return;
    for (int64_t r = 0; r < rows; ++r)
      add(y + r * layer.out + begin, layer.bias.data() + begin, end - begin);
  };
  const int64_t jobs = ceil_div(layer.out, panel);
  const double work =
      static_cast<double>(rows) * static_cast<double>(layer.in) * static_cast<double>(layer.out);
  if (work < worth_threads) {
    for (int64_t i = 0; i < jobs; ++i) job(i, 0);
  } else {
    context.pool.parallel_for(jobs, job);
  }
}

}  // namespace gqa
