#include "regroup/refit_outputs.h"

#include <algorithm>
#include <array>
#include <utility>

#include "regroup/decompositions.h"
#include "regroup/lumps.h"
#include "regroup/products.h"
#include "regroup/windows.h"

namespace gqa {
namespace {

/// Pulls towards the outputs as they are, the least first, relative to a head's own moments: few
/// tokens, or few that are large, want more than many.
constexpr std::array pulls{1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};

/// The outputs that fit best, where `start` pulls. moments: attended^T * attended, wanted:
/// attended^T * target.
Matrix fitted(Matrix moments, Matrix wanted, const Matrix& start, int64_t head_dim, double pull) {
  const double least =
      std::max(1e-4 * pull * moments.trace() / static_cast<double>(moments.rows()), 1e-300);
  for (int64_t c = 0; c < moments.rows(); c += head_dim) {
    auto block = moments.block(c, c, head_dim, head_dim);
    Matrix ridge = pull * block;
    ridge.diagonal().array() += least;
    wanted.middleRows(c, head_dim) += ridge * start.middleCols(c, head_dim).transpose();
    block += ridge;
  }
  solve_in_place(moments, wanted);
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

/// What heads attend to on some windows, beside what is wanted there; tokens weighed.
class Examples {
 public:
  Examples(const BlockShape& shape, const BlockGoal& goal, std::vector<int64_t> windows)
      : shape_(shape),
        goal_(goal),
        windows_(std::move(windows)),
        attended_(goal.place, rows(), shape.q_heads() * shape.head_dim),
        target_(goal.place, rows(), goal.target.cols()) {}

  /// `attended`: rows of the text from `row` on, whole windows. To be called in their order.
  void add(const Rows& attended, int64_t row) {
    for (; next_ < windows_.size(); ++next_) {
      const auto [from, n] = window(next_);
      if (from >= row + attended.rows()) return;
      attended_.map().middleRows(filled_, n) = attended.middleRows(from - row, n);
      target_.map().middleRows(filled_, n) = goal_.target.middleRows(from, n);
      const TokenWeights weights = slice(goal_.weights, from, n);
      weigh_by_roots(attended_.map().middleRows(filled_, n), weights);
      weigh_by_roots(target_.map().middleRows(filled_, n), weights);
      filled_ += n;
    }
  }

  double error(Context::Impl& context, const Matrix& o) const {
    return squared_error(context, attended_, target_, o.cast<float>()) /
           std::max(squared_norm(target_), 1e-300);
  }

  const ScratchRows& attended() const { return attended_; }
  const ScratchRows& target() const { return target_; }

 private:
  struct Span {
    int64_t from, n;
  };
  Span window(size_t i) const {
    const auto w = static_cast<size_t>(windows_[i]);
    return {shape_.window_begin[w], shape_.window_begin[w + 1] - shape_.window_begin[w]};
  }
  int64_t rows() const {
    int64_t sum = 0;
    for (size_t i = 0; i < windows_.size(); ++i) sum += window(i).n;
    return sum;
  }

  const BlockShape& shape_;
  const BlockGoal& goal_;
  std::vector<int64_t> windows_;
  ScratchRows attended_, target_;
  size_t next_ = 0;     ///< of the windows
  int64_t filled_ = 0;  ///< rows
};

}  // namespace

OutputFit refit_outputs(Context::Impl& context, const BlockShape& shape, const BlockGoal& goal,
                        Heads heads) {
  const WindowSplit split(shape.windows());
  Examples used(shape, goal, split.used), checked(shape, goal, split.checked);
  for_lumps(context, shape, goal.inputs, block_weights(heads),
            [&](const BlockShape&, const BlockAttention& block, int64_t row) {
              used.add(block.attended(), row);
              checked.add(block.attended(), row);
            });
  OutputFit fit{{}, checked.error(context, heads.o), 0};
  fit.after = fit.before;
  const Matrix moments = gram(context, used.attended(), used.attended());
  const Matrix wanted = gram(context, used.attended(), used.target());
  const Matrix start = heads.o;
  fit.heads = std::move(heads);
  for (const double pull : pulls) {
    Matrix o = fitted(moments, wanted, start, shape.head_dim, pull);
    const double error = checked.error(context, o);
    if (error < fit.after) {
      fit.heads.o = std::move(o);
      fit.after = error;
    } else if (fit.after < fit.before) {
      break;  // it fell, and rises again
    }
  }
  return fit;
}

}  // namespace gqa
