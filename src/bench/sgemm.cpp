#include "bench/sgemm.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "bench/random_floats.h"
#include "core/fail.h"

namespace gqa::bench {

Sgemm::Sgemm(const ThreadPool& pool, int64_t size) : size_(size) {
  require(size >= pool.n_threads(), "gemm_size is {}, expected at least the number of threads ({})",
          size, pool.n_threads());
  a_ = random_floats(size * size);
  b_ = random_floats(size * size);
  c_.resize(a_.size());
}

double Sgemm::flop() const {
  const auto n = static_cast<double>(size_);
  return 2 * n * n * n;
}

std::pair<int, int> tile_grid(int n) {
  int columns = 1;
  for (int i = 1; i * i <= n; ++i) {
    if (n % i == 0) columns = i;
  }
  return {n / columns, columns};
}

void Sgemm::run(ThreadPool& pool) {
  const auto [rows, columns] = tile_grid(pool.n_threads());
  const int grid_rows = rows;
  const int grid_columns = columns;
  const int64_t size = size_;
  pool.parallel_for(pool.n_threads(), [&](int64_t tile, int) {
    omp_set_num_threads(1);  // of this thread's own calls
    const auto begin = [size](int64_t i, int n) { return size * i / n; };
    const int64_t row = begin(tile / grid_columns, grid_rows);
    const int64_t row_end = begin(tile / grid_columns + 1, grid_rows);
    const int64_t column = begin(tile % grid_columns, grid_columns);
    const int64_t column_end = begin(tile % grid_columns + 1, grid_columns);
    const dnnl_status_t status =
        dnnl_sgemm('N', 'N', row_end - row, column_end - column, size, 1.0f, a_.data() + row * size,
                   size, b_.data() + column, size, 0.0f, c_.data() + row * size + column, size);
    if (status != dnnl_success) fail(ErrorKind::resources, "oneDNN: error {}", int{status});
  });
}

}  // namespace gqa::bench
