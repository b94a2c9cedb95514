#include "regroup/refit_outputs.h"

#include <algorithm>

#include "regroup/lumps.h"
#include "regroup/products.h"

namespace gqa {
namespace {

/// Pull towards the outputs as they are.
constexpr double output_ridge = 1e-5;

Matrix fitted(Context::Impl& context, const Rows& attended, const Rows& target, const Matrix& start,
              int64_t head_dim) {
  Matrix moments = gram(context, attended, attended);
  Matrix wanted = gram(context, attended, target);
  const double mean = moments.trace() / static_cast<double>(moments.rows());
  Matrix ridge = Matrix::Zero(moments.rows(), moments.cols());
  for (int64_t c = 0; c < moments.rows(); c += head_dim) {
    ridge.block(c, c, head_dim, head_dim) = output_ridge * moments.block(c, c, head_dim, head_dim);
  }
  ridge.diagonal().array() += std::max(1e-9 * mean, 1e-300);
  wanted += ridge * start.transpose();
  moments += ridge;
  return moments.llt().solve(wanted).transpose();
}

}  // namespace

OutputFit refit_outputs(Context::Impl& context, const BlockShape& shape, const Rows& inputs,
                        const Rows& target, const Heads& heads) {
  Rows attended(inputs.rows(), shape.q_heads() * shape.head_dim);
  for_lumps(context, shape, inputs, block_weights(heads),
            [&](const BlockShape& part, const BlockAttention& block, int64_t row) {
              attended.middleRows(row, part.window_begin.back()) = block.attended();
            });
  const double whole = std::max(squared_norm(target), 1e-300);
  const auto error = [&](const Matrix& o) {
    return squared_norm(times_transposed(context, attended, o.cast<float>()) - target) / whole;
  };
  OutputFit fit{heads, error(heads.o), 0};
  fit.after = fit.before;
  Matrix o = fitted(context, attended, target, heads.o, shape.head_dim);
  const double then = error(o);
  if (!(then < fit.before)) return fit;
  fit.heads.o = std::move(o);
  fit.after = then;
  return fit;
}

}  // namespace gqa
