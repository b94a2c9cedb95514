#include "regroup/values.h"

#include <algorithm>
#include <cmath>

#include "regroup/decompositions.h"

namespace gqa {
namespace {

/// Eigenvalues below this share of the largest are rounding errors.
constexpr double negligible = 1e-12;

/// 1 / x, or 0 where x is nothing beside `largest`.
Vector inverse_or_zero(const Vector& x, double largest) {
  return x.unaryExpr([&](double v) { return v > largest * negligible ? 1.0 / v : 0.0; });
}

/// B_a^T B_b for all members: blocks roots[a] V_a C V_b^T roots[b]^T.
Matrix output_grams(const Matrix& values, const std::vector<Matrix>& roots) {
  const int64_t d = roots.front().rows();
  Matrix all(values.rows(), values.cols());
  for (size_t a = 0; a < roots.size(); ++a) {
    const auto row = static_cast<int64_t>(a) * d;
    for (size_t b = 0; b <= a; ++b) {
      const auto col = static_cast<int64_t>(b) * d;
      const Matrix block = roots[a] * values.block(row, col, d, d) * roots[b].transpose();
      all.block(row, col, d, d) = block;
      all.block(col, row, d, d) = block.transpose();
    }
  }
  return all;
}

/// V_a C V_b^T of a group's members.
Matrix member_values(const HeadGrams& grams, const std::vector<int64_t>& group) {
  const int64_t d = grams.head_dim;
  const int64_t n = std::ssize(group);
  Matrix values(n * d, n * d);
  for (int64_t a = 0; a < n; ++a) {
    for (int64_t b = 0; b < n; ++b) {
      values.block(a * d, b * d, d, d) =
          grams.value_block(group[static_cast<size_t>(a)], group[static_cast<size_t>(b)]);
    }
  }
  return values;
}

std::vector<Matrix> output_roots(const HeadGrams& grams, const std::vector<int64_t>& group) {
  std::vector<Matrix> roots;
  for (const int64_t g : group) roots.push_back(square_root(grams.outputs_of(g)));
  return roots;
}

int64_t query_heads(const HeadGrams& grams, int64_t g) {
  return grams.q_begin[static_cast<size_t>(g) + 1] - grams.q_begin[static_cast<size_t>(g)];
}

}  // namespace

Matrix square_root(const Matrix& m) {
  const SymmetricEigen solver(m);
  return solver.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() *
         solver.eigenvectors().transpose();
}

Whitening whiten(const Matrix& moments) {
  const SymmetricEigen solver(moments);
  const Vector& squares = solver.eigenvalues();
  const Vector shrink = inverse_or_zero(squares, squares.maxCoeff()).cwiseSqrt();
  return {shrink.asDiagonal() * solver.eigenvectors().transpose(),
          solver.eigenvectors() * squares.cwiseMax(0.0).cwiseSqrt().asDiagonal(),
          (shrink.array() > 0).count()};
}

std::vector<Matrix> principal_mixture(const Matrix& values, const std::vector<Matrix>& roots,
                                      int64_t rank) {
  const int64_t d = roots.front().rows();
  const SymmetricEigen solver(output_grams(values, roots));
  // Directions B c of unit length; those of no energy are left at zero.
  const Vector kept = solver.eigenvalues().tail(rank);
  const Vector shrink = inverse_or_zero(kept, kept.maxCoeff()).cwiseSqrt();
  const Matrix directions = shrink.asDiagonal() * solver.eigenvectors().rightCols(rank).transpose();
  std::vector<Matrix> mixture;
  for (size_t a = 0; a < roots.size(); ++a) {
    mixture.emplace_back(directions.middleCols(static_cast<int64_t>(a) * d, d) * roots[a]);
  }
  return mixture;
}

ValueMix principal_values(const HeadGrams& grams, const std::vector<int64_t>& group, int64_t rank) {
  const int64_t d = grams.head_dim;
  ValueMix mix;
  mix.value = principal_mixture(member_values(grams, group), output_roots(grams, group), rank);
  for (size_t a = 0; a < group.size(); ++a) {
    // Least squares: V_a C V'^T (V' C V'^T)^-1, and the inverse is 1 on what is kept.
    Matrix output = Matrix::Zero(d, rank);
    for (size_t b = 0; b < group.size(); ++b) {
      output += grams.value_block(group[a], group[b]) * mix.value[b].transpose();
    }
    for (int64_t i = 0; i < query_heads(grams, group[a]); ++i) mix.output.push_back(output);
  }
  return mix;
}

Loss value_loss(const HeadGrams& grams, const std::vector<int64_t>& group) {
  const SymmetricEigen solver(output_grams(member_values(grams, group), output_roots(grams, group)),
                              Eigenvectors::not_wanted);
  Loss loss;
  loss.total = solver.eigenvalues().sum();
  loss.lost = std::max(loss.total - solver.eigenvalues().tail(grams.head_dim).sum(), 0.0);
  return loss;
}

ValueMix aligned_values(const HeadGrams& grams, const std::vector<int64_t>& group) {
  constexpr int rounds = 15;
  const int64_t d = grams.head_dim;
  const size_t n = group.size();
  std::vector<Whitening> bases;
  for (const int64_t g : group) bases.push_back(whiten(grams.value_block(g, g)));
  std::vector<std::vector<Matrix>> pairs(n, std::vector<Matrix>(n));  // V_a C V_b^T, whitened
  for (size_t a = 0; a < n; ++a) {
    for (size_t b = 0; b < n; ++b) {
      pairs[a][b] = bases[a].map * grams.value_block(group[a], group[b]) * bases[b].map.transpose();
    }
  }
  std::vector<Matrix> turns(n, Matrix::Identity(d, d));
  // mean C V_a^T of the mean of the first `members` turned heads.
  const auto against = [&](size_t members, size_t a) {
    Matrix sum = Matrix::Zero(d, d);
    for (size_t b = 0; b < members; ++b) sum += turns[b] * pairs[b][a];
    return sum;
  };
  for (int round = 0; round < rounds; ++round) {
    std::vector<Matrix> next(n);
    for (size_t a = 0; a < n; ++a) next[a] = closest_rotation(against(round == 0 ? 1 : n, a));
    turns = std::move(next);
  }
  double wanted = 0;
  double got = 0;
  for (size_t a = 0; a < n; ++a) {
    wanted += pairs[a][a].trace() / static_cast<double>(n);
    got += against(n, a).cwiseProduct(turns[a]).sum() / static_cast<double>(n * n);
  }
  const double scale = got > 0 && wanted > 0 ? std::sqrt(wanted / got) : 1.0;
  ValueMix mix;
  for (size_t a = 0; a < n; ++a) {
    mix.value.emplace_back(scale / static_cast<double>(n) * turns[a] * bases[a].map);
    const Matrix output = bases[a].inverse * turns[a].transpose();
    for (int64_t i = 0; i < query_heads(grams, group[a]); ++i) mix.output.push_back(output);
  }
  return mix;
}

void apply(const ValueMix& mix, const Heads& source, const std::vector<int64_t>& group, int64_t g,
           Heads& result) {
  auto value = result.v_of(g);
  value.setZero();
  for (size_t a = 0; a < group.size(); ++a) value += mix.value[a] * source.v_of(group[a]);
  const int64_t first = result.q_begin[static_cast<size_t>(g)];
  const std::vector<int64_t> query_heads = query_heads_of(source, group);
  for (size_t i = 0; i < query_heads.size(); ++i) {
    result.o_of(first + static_cast<int64_t>(i)) = source.o_of(query_heads[i]) * mix.output[i];
  }
}

}  // namespace gqa
