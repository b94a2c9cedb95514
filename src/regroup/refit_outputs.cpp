#include "regroup/refit_outputs.h"

#include <algorithm>
#include <utility>

#include "regroup/lumps.h"
#include "regroup/products.h"

namespace gqa {
namespace {

/// Pull towards the outputs as they are.
constexpr double output_ridge = 1e-5;

Matrix fitted(Context::Impl& context, const RowsRef& attended, const RowsRef& target,
              const Matrix& start, int64_t head_dim) {
  Matrix moments = gram(context, attended, attended);
  Matrix wanted = gram(context, attended, target);
  const double least =
      std::max(1e-9 * moments.trace() / static_cast<double>(moments.rows()), 1e-300);
  for (int64_t c = 0; c < moments.rows(); c += head_dim) {
    auto block = moments.block(c, c, head_dim, head_dim);
    Matrix ridge = output_ridge * block;
    ridge.diagonal().array() += least;
    wanted.middleRows(c, head_dim) += ridge * start.middleCols(c, head_dim).transpose();
    block += ridge;
  }
  const Eigen::LLT<Eigen::Ref<Matrix>> factors(moments);  // in place
  factors.solveInPlace(wanted);
  return wanted.transpose();
}

/// |attended * o^T - target|^2.
double squared_error(Context::Impl& context, const RowsRef& attended, const RowsRef& target,
                     const Rows& o) {
  constexpr int64_t lump = 1024;
  double sum = 0;
  for (int64_t r = 0; r < attended.rows(); r += lump) {
    const int64_t n = std::min(lump, attended.rows() - r);
    Rows rest = times_transposed(context, attended.middleRows(r, n), o);
    rest -= target.middleRows(r, n);
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(rest.row(i).squaredNorm());
  }
  return sum;
}

}  // namespace

OutputFit refit_outputs(Context::Impl& context, const BlockShape& shape, const RowsRef& inputs,
                        const RowsRef& target, Heads heads, const ScratchPlace& place) {
  ScratchRows attended(place, inputs.rows(), shape.q_heads() * shape.head_dim);
  for_lumps(context, shape, inputs, block_weights(heads),
            [&](const BlockShape& part, const BlockAttention& block, int64_t row) {
              attended.map().middleRows(row, part.window_begin.back()) = block.attended();
            });
  const double whole = std::max(squared_norm(target), 1e-300);
  const auto error = [&](const Matrix& o) {
    return squared_error(context, attended, target, o.cast<float>()) / whole;
  };
  OutputFit fit{{}, error(heads.o), 0};
  fit.heads = std::move(heads);
  fit.after = fit.before;
  Matrix o = fitted(context, attended, target, fit.heads.o, shape.head_dim);
  const double then = error(o);
  if (!(then < fit.before)) return fit;
  fit.heads.o = std::move(o);
  fit.after = then;
  return fit;
}

}  // namespace gqa
