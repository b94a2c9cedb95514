#include "regroup/products.h"

#include <algorithm>

#include "core/checked.h"

extern "C" void openblas_set_num_threads(int n);

namespace gqa {
namespace {

[[maybe_unused]] const bool from_the_start = (keep_blas_on_one_thread(), true);

/// body(begin, n) over pieces of fixed size.
template <typename Body>
void for_pieces(Context::Impl& context, int64_t total, int64_t piece, const Body& body) {
  context.pool.parallel_for(ceil_div(total, piece), [&](int64_t i, int) {
    body(i * piece, std::min(piece, total - i * piece));
  });
}

}  // namespace

void keep_blas_on_one_thread() {
  [[maybe_unused]] static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
}

Rows times_transposed(Context::Impl& context, const RowsRef& x, const Rows& w) {
  Rows y(x.rows(), w.rows());
  for_pieces(context, x.rows(), 256, [&](int64_t r, int64_t n) {
    y.middleRows(r, n).noalias() = x.middleRows(r, n) * w.transpose();
  });
  return y;
}

Rows transposed_times(Context::Impl& context, const Rows& a, const Rows& b) {
  Rows y(a.cols(), b.cols());
  for_pieces(context, a.cols(), 64, [&](int64_t c, int64_t n) {
    y.middleRows(c, n).noalias() = a.middleCols(c, n).transpose() * b;
  });
  return y;
}

Matrix gram(Context::Impl& context, const RowsRef& a, const RowsRef& b) {
  Matrix sum = Matrix::Zero(a.cols(), b.cols());
  constexpr int64_t slice = 512;
  const bool same =
      a.data() == b.data() && a.cols() == b.cols() && a.outerStride() == b.outerStride();
  Matrix left(std::min(slice, a.rows()), a.cols());
  Matrix right(same ? 0 : left.rows(), b.cols());
  for (int64_t r = 0; r < a.rows(); r += slice) {
    const int64_t rows = std::min(slice, a.rows() - r);
    for_pieces(context, rows, 16, [&](int64_t first, int64_t n) {
      left.middleRows(first, n) = a.middleRows(r + first, n).cast<double>();
      if (!same) right.middleRows(first, n) = b.middleRows(r + first, n).cast<double>();
    });
    const auto with = (same ? left : right).topRows(rows);
    for_pieces(context, a.cols(), 64, [&](int64_t c, int64_t n) {
      sum.middleRows(c, n).noalias() += left.block(0, c, rows, n).transpose() * with;
    });
  }
  return sum;
}

double squared_norm(const RowsRef& rows) {
  double sum = 0;
  for (int64_t r = 0; r < rows.rows(); ++r) sum += static_cast<double>(rows.row(r).squaredNorm());
  return sum;
}

}  // namespace gqa
