#include "regroup/fit_block.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "regroup/products.h"

namespace gqa {
namespace {

/// What stands on the diagonal of a moment that is to be inverted, beside its mean.
constexpr double inputs_ridge = 1e-4;
constexpr double factors_ridge = 1e-5;

Matrix with_ridge(const Matrix& m, double ridge) {
  const double mean = m.trace() / static_cast<double>(m.rows());
  return m + std::max(ridge * mean, 1e-300) * Matrix::Identity(m.rows(), m.cols());
}

Matrix inverse(const Matrix& m, double ridge) {
  return with_ridge(m, ridge).llt().solve(Matrix::Identity(m.rows(), m.cols()));
}

double squared_norm(const Rows& rows) {
  double sum = 0;
  for (int64_t r = 0; r < rows.rows(); ++r) sum += static_cast<double>(rows.row(r).squaredNorm());
  return sum;
}

/// An estimate of the curvature J^T J: moments of inputs, and per head moments of gradients.
class Curvature {
 public:
  Curvature(Context::Impl& context, const BlockShape& shape, const BlockAttention& block,
            const Rows& inputs, int64_t width, Random& random)
      : context_(context), d_(shape.head_dim) {
    // Gradients of random unit cotangents: their moments are those of all outputs together.
    Rows probe(inputs.rows(), width);
    for (int64_t i = 0; i < probe.size(); ++i) {
      probe.data()[i] = static_cast<float>(random.normal());
    }
    const BlockAttention::HeadFactors factors = block.pullback_factors(probe);
    q_ = factors_of(factors.q);
    k_ = factors_of(factors.k);
    v_ = factors_of(factors.v);
    std::vector<Matrix> outputs;
    for (int64_t h = 0; h < shape.q_heads(); ++h) {
      const Rows head = block.attended().middleCols(h * d_, d_);
      outputs.push_back(gram(context, head, head));
    }
    o_ = factors_of(outputs);
    const Matrix moments = gram(context, inputs, inputs) / static_cast<double>(inputs.rows());
    inputs_ = moments.cast<float>();
    inputs_inverse_ = inverse(moments, inputs_ridge).cast<float>();
  }

  BlockWeights times(const BlockWeights& x) const { return apply(x, &Factors::own, inputs_); }
  BlockWeights solve(const BlockWeights& x) const {
    return apply(x, &Factors::inverse, inputs_inverse_);
  }

 private:
  struct Factors {
    std::vector<Rows> own, inverse;  ///< per head, [head_dim, head_dim]
  };

  static Factors factors_of(const std::vector<Matrix>& moments) {
    Factors factors;
    for (const Matrix& m : moments) {
      factors.own.emplace_back(m.cast<float>());
      factors.inverse.emplace_back(inverse(m, factors_ridge).cast<float>());
    }
    return factors;
  }

  BlockWeights apply(const BlockWeights& x, std::vector<Rows> Factors::*which,
                     const Rows& by_inputs) const {
    const auto heads_first = [&](const Factors& factors, const Rows& from) {
      Rows scaled(from.rows(), from.cols());
      for (size_t h = 0; h < (factors.*which).size(); ++h) {
        const auto row = static_cast<int64_t>(h) * d_;
        scaled.middleRows(row, d_).noalias() = (factors.*which)[h] * from.middleRows(row, d_);
      }
      return times_transposed(context_, scaled, by_inputs);  // symmetric
    };
    BlockWeights y{heads_first(q_, x.q), heads_first(k_, x.k), heads_first(v_, x.v),
                   Rows(x.o.rows(), x.o.cols())};
    for (size_t h = 0; h < (o_.*which).size(); ++h) {
      const auto column = static_cast<int64_t>(h) * d_;
      y.o.middleCols(column, d_).noalias() = x.o.middleCols(column, d_) * (o_.*which)[h];
    }
    return y;
  }

  Context::Impl& context_;
  int64_t d_;
  Factors q_, k_, v_, o_;
  Rows inputs_, inputs_inverse_;
};

class BlockFit {
 public:
  BlockFit(Context::Impl& context, const BlockShape& shape, const Rows& inputs, const Rows& target,
           const FitOptions& options, const std::function<void()>& interrupt)
      : context_(context),
        shape_(shape),
        inputs_(inputs),
        target_(target),
        options_(options),
        interrupt_(interrupt),
        block_(context, shape, inputs),
        random_(options.seed, RandomUse::probe, 0) {}

  /// Runs the block; the squared error of its output.
  double run(const BlockWeights& weights) {
    block_.run(weights);
    residual_ = block_.output() - target_;
    return squared_norm(residual_);
  }

  /// Ridge regression of the target on what all heads attend to, towards the weights as they are;
  /// the block must have run with them.
  void refit_outputs(BlockWeights& weights) {
    const Rows& attended = block_.attended();
    Matrix moments = gram(context_, attended, attended);
    Matrix wanted = gram(context_, attended, target_);
    const double mean = moments.trace() / static_cast<double>(moments.rows());
    const int64_t d = shape_.head_dim;
    Matrix ridge = Matrix::Zero(moments.rows(), moments.cols());
    for (int64_t c = 0; c < moments.rows(); c += d) {
      ridge.block(c, c, d, d) = options_.output_ridge * moments.block(c, c, d, d);
    }
    ridge.diagonal().array() += std::max(1e-9 * mean, 1e-300);
    wanted += ridge * weights.o.cast<double>().transpose();
    moments += ridge;
    weights.o = moments.llt().solve(wanted).transpose().cast<float>();
  }

  /// The step that solves (J^T J + damping * curvature) x = -J^T residual; predicted: how much less
  /// the squared error should be.
  BlockWeights step(double damping, double& predicted) {
    const Curvature curvature(context_, shape_, block_, inputs_, target_.cols(), random_);
    BlockWeights r = block_.pullback(residual_);
    BlockWeights x = BlockWeights::zeros_like(r);
    r.add(-2.0f, r);  // the negative gradient
    BlockWeights z = curvature.solve(r);
    BlockWeights p = z;
    double rz = r.dot(z);
    const double first = rz;
    predicted = 0;
    for (int i = 0; i < options_.solver_steps && rz > 1e-4 * first && rz > 0; ++i) {
      if (interrupt_) interrupt_();
      BlockWeights hp = block_.pullback(block_.tangent(p));
      hp.add(static_cast<float>(damping), curvature.times(p));
      const double alpha = rz / p.dot(hp);
      if (!std::isfinite(alpha) || alpha <= 0) break;
      x.add(static_cast<float>(alpha), p);
      r.add(static_cast<float>(-alpha), hp);
      predicted += alpha * rz;
      z = curvature.solve(r);
      const double next = r.dot(z);
      BlockWeights direction = z;
      direction.add(static_cast<float>(next / rz), p);
      p = std::move(direction);
      rz = next;
    }
    return x;
  }

 private:
  Context::Impl& context_;
  const BlockShape& shape_;
  const Rows& inputs_;
  const Rows& target_;
  const FitOptions& options_;
  const std::function<void()>& interrupt_;
  BlockAttention block_;
  Rows residual_;
  Random random_;
};

}  // namespace

FitResult fit_block(Context::Impl& context, const BlockShape& shape, const Rows& inputs,
                    const Rows& target, const Heads& heads, const FitOptions& options,
                    const std::function<void()>& interrupt) {
  BlockFit fit(context, shape, inputs, target, options, interrupt);
  BlockWeights weights = block_weights(heads);
  const double whole = std::max(squared_norm(target), 1e-300);
  double error = fit.run(weights);
  FitResult result{heads, error / whole, error / whole};

  // A trial is kept where it lowers the error; else the block runs as before.
  const auto accept = [&](BlockWeights trial) {
    const double then = fit.run(trial);
    if (!(then < error)) {
      fit.run(weights);
      return false;
    }
    weights = std::move(trial);
    error = then;
    return true;
  };
  BlockWeights refitted = weights;
  fit.refit_outputs(refitted);
  accept(std::move(refitted));

  double damping = options.damping;
  for (int i = 0; i < options.steps; ++i) {
    double predicted = 0;
    const double before = error;
    const BlockWeights change = fit.step(damping, predicted);
    float length = 1.0f;
    bool accepted = false;
    for (int trial = 0; trial < 3 && !accepted; ++trial, length *= 0.4f) {
      BlockWeights changed = weights;
      changed.add(length, change);
      accepted = accept(std::move(changed));
      if (accepted) break;
    }
    const double gained = (before - error) / std::max(predicted, 1e-300);
    if (!accepted) {
      damping *= 10;
    } else if (length == 1.0f && gained > 0.7) {
      damping = std::max(damping / 3, 1e-5);
    } else if (length < 1.0f || gained < 0.3) {
      damping *= 4;
    }
  }
  result.heads = with_weights(heads, weights);
  result.after = error / whole;
  return result;
}

}  // namespace gqa
