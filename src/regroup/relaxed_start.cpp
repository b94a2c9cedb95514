#include "regroup/relaxed_start.h"

#include <algorithm>
#include <utility>

#include "regroup/balance.h"
#include "regroup/decompositions.h"
#include "regroup/products.h"
#include "regroup/values.h"

namespace gqa {
namespace {

using Complex = std::complex<double>;

/// On the diagonal of what is inverted, beside its mean.
constexpr double ridge = 1e-6;

/// A random unitary matrix.
template <typename Scalar, typename Draw>
auto random_turn(int64_t n, const Draw& draw) {
  using Square = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;
  Square any(n, n);
  for (int64_t i = 0; i < any.size(); ++i) any.data()[i] = draw();
  return orthogonal_factor(any);
}

/// x with x * moments = cross, for moments that may be singular.
template <typename Square>
Square predicted(const Square& cross, Square moments) {
  const double mean = std::abs(moments.trace()) / static_cast<double>(moments.rows());
  moments.diagonal().array() += std::max(ridge * mean, 1e-300);
  return right_divided(cross, moments);
}

class Start {
 public:
  Start(Context::Impl& context, const LayerStudy& study, int64_t groups, Random& random)
      : study_(study),
        heads_(balanced(study.heads)),
        moments_(gram(context, study.inputs, study.inputs) /
                 static_cast<double>(study.inputs.rows())),
        groups_(groups),
        random_(random) {}

  RelaxedHeads run() {
    const int64_t d = heads_.head_dim;
    const int64_t n = heads_.kv_heads();
    BlockWeights own = block_weights(heads_);
    RelaxedHeads result{.head_dim = d,
                        .logits = Rows::Zero(n, groups_),
                        .keys = Rows(groups_ * d, heads_.inputs()),
                        .values = {},
                        .key_factors = Rows(n * d, groups_),
                        .value_maps = Rows(n * d, groups_ * d),
                        .q = std::move(own.q),
                        .o = std::move(own.o)};
    const HeadGrams grams = make_grams(heads_, moments_);
    for (int64_t p = 0; p < d / 2; ++p) set_plane(grams, p, result);
    set_values(result);
    // Each share is one of `groups`: together they are to be the prediction.
    result.key_factors *= static_cast<float>(groups_);
    result.value_maps *= static_cast<float>(groups_);
    return result;
  }

 private:
  /// With z_a the keys, w_a the queries that read them: mixtures m z of unit energy that span the
  /// principal directions of w_a z_a, and factors t with t m z closest to z.
  void set_plane(const HeadGrams& grams, int64_t p, RelaxedHeads& result) {
    const int64_t n = heads_.kv_heads();
    const int64_t half = heads_.head_dim / 2;
    Vector weights(n);
    for (int64_t a = 0; a < n; ++a) weights[a] = grams.query_weight(p, a);
    const Eigen::MatrixXcd keys = grams.keys[static_cast<size_t>(p)];
    const HermitianEigen solver(weights.asDiagonal() * keys * weights.asDiagonal());
    const Vector energy = solver.eigenvalues().tail(groups_);
    const double least = ridge * std::max(energy.maxCoeff(), 1e-300);
    const Eigen::MatrixXcd mix =
        random_turn<Complex>(groups_, [&] { return Complex(random_.normal(), random_.normal()); }) *
        energy.cwiseMax(least).cwiseSqrt().cwiseInverse().asDiagonal() *
        solver.eigenvectors().rightCols(groups_).adjoint() * weights.asDiagonal();
    const Eigen::MatrixXcd cross = keys * mix.adjoint();
    const Eigen::MatrixXcd factors = predicted<Eigen::MatrixXcd>(cross, mix * cross);
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t row = g * heads_.head_dim + p;
      Eigen::RowVectorXcd key = Eigen::RowVectorXcd::Zero(heads_.inputs());
      for (int64_t a = 0; a < n; ++a) {
        key += mix(g, a) * planes(heads_.k_of(a)).row(p);
        const int64_t to = a * heads_.head_dim + p;
        result.key_factors(to, g) = static_cast<float>(factors(a, g).real());
        result.key_factors(to + half, g) = static_cast<float>(factors(a, g).imag());
      }
      result.keys.row(row) = key.real().cast<float>();
      result.keys.row(row + half) = key.imag().cast<float>();
    }
  }

  void set_values(RelaxedHeads& result) {
    const int64_t d = heads_.head_dim;
    const int64_t n = heads_.kv_heads();
    std::vector<Matrix> averaged(static_cast<size_t>(n));
    std::vector<Matrix> roots;
    Matrix mean = Matrix::Zero(heads_.inputs(), heads_.inputs());
    for (int64_t a = 0; a < n; ++a) {
      const std::vector<int64_t> readers = query_heads_of(heads_, {a});
      Matrix& own = averaged[static_cast<size_t>(a)];
      own = Matrix::Zero(heads_.inputs(), heads_.inputs());
      Matrix energy = Matrix::Zero(d, d);
      for (const int64_t h : readers) {
        own += study_.averaged(h) / static_cast<double>(readers.size());
        energy += heads_.o_of(h).transpose() * heads_.o_of(h);
      }
      mean += own / static_cast<double>(n);
      roots.push_back(square_root(energy));
    }
    const std::vector<Matrix> mix =
        principal_mixture(heads_.v * mean * heads_.v.transpose(), roots, groups_ * d);
    Matrix shared = Matrix::Zero(groups_ * d, heads_.inputs());
    for (int64_t a = 0; a < n; ++a) shared += mix[static_cast<size_t>(a)] * heads_.v_of(a);
    shared = random_turn<double>(groups_ * d, [&] { return random_.normal(); }) * shared;
    result.values = shared.cast<float>();
    for (int64_t a = 0; a < n; ++a) {
      const Matrix seen = averaged[static_cast<size_t>(a)] * shared.transpose();
      result.value_maps.middleRows(a * d, d) =
          predicted<Matrix>(heads_.v_of(a) * seen, shared * seen).cast<float>();
    }
  }

  const LayerStudy& study_;
  const Heads heads_;
  const Matrix moments_;
  const int64_t groups_;
  Random& random_;
};

}  // namespace

RelaxedHeads relaxed_start(Context::Impl& context, const LayerStudy& study, int64_t groups,
                           Random& random) {
  return Start(context, study, groups, random).run();
}

}  // namespace gqa
