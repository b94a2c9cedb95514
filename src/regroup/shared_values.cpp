#include "regroup/shared_values.h"

#include <algorithm>

#include "regroup/decompositions.h"
#include "regroup/values.h"

namespace gqa {
namespace {

/// On the diagonal of what is inverted, beside its mean.
constexpr double output_ridge = 1e-8;

/// Heads of the group, and the KV head that each reads in the source.
struct Member {
  int64_t q_head;
  int64_t kv_head;
};

std::vector<Member> members_of(const Heads& heads, const std::vector<int64_t>& group) {
  std::vector<Member> members;
  for (const int64_t g : group) {
    for (const int64_t h : query_heads_of(heads, {g})) members.push_back({h, g});
  }
  return members;
}

/// What a head puts out under C_h, as a map of its values that have the moments `own` under C:
/// R with |R v|^2 = |O v'|^2 for v' of the moments `seen` that lie as v does.
Matrix output_root(const Matrix& output_gram, const Matrix& own, const Matrix& seen) {
  const Whitening basis = whiten(own);
  const SymmetricEigen whitened(basis.map * seen * basis.map.transpose());
  const Matrix root = whitened.eigenvectors() *
                      whitened.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() *
                      whitened.eigenvectors().transpose();
  return square_root(output_gram) * basis.inverse * root * basis.map;
}

}  // namespace

SharedValue shared_value(const Heads& heads, const std::vector<int64_t>& group,
                         const HeadMoments& moments, int64_t rank) {
  const std::vector<Member> members = members_of(heads, group);
  const int64_t d = heads.head_dim;
  Matrix mean = Matrix::Zero(heads.inputs(), heads.inputs());
  for (const Member& m : members) mean += moments(m.q_head);
  mean /= static_cast<double>(members.size());

  Matrix stacked(std::ssize(group) * d, heads.inputs());
  for (size_t a = 0; a < group.size(); ++a) {
    stacked.middleRows(static_cast<int64_t>(a) * d, d) = heads.v_of(group[a]);
  }
  const Matrix values = stacked * mean * stacked.transpose();
  std::vector<Matrix> roots;
  for (size_t a = 0; a < group.size(); ++a) {
    const auto row = static_cast<int64_t>(a) * d;
    Matrix energy = Matrix::Zero(d, d);
    for (const int64_t h : query_heads_of(heads, {group[a]})) {
      const auto v = heads.v_of(group[a]);
      const Matrix root = output_root(heads.o_of(h).transpose() * heads.o_of(h),
                                      values.block(row, row, d, d), v * moments(h) * v.transpose());
      energy += root.transpose() * root;
    }
    roots.push_back(square_root(energy));
  }
  const std::vector<Matrix> mixture = principal_mixture(values, roots, rank);
  SharedValue shared;
  shared.value = Matrix::Zero(rank, heads.inputs());
  for (size_t a = 0; a < group.size(); ++a) {
    shared.value += mixture[a] * stacked.middleRows(static_cast<int64_t>(a) * d, d);
  }

  for (const Member& m : members) {
    const AveragedMoments::Map c = moments(m.q_head);
    const Matrix seen = c * shared.value.transpose();
    Matrix own = shared.value * seen;
    own.diagonal().array() +=
        std::max(output_ridge * own.trace() / static_cast<double>(rank), 1e-300);
    const Matrix cross = heads.v_of(m.kv_head) * seen;  // E[v v'^T]
    const Matrix map = right_divided(cross, own);
    shared.outputs.emplace_back(heads.o_of(m.q_head) * map);
    // O (V - map V') under C.
    const Matrix rest = heads.v_of(m.kv_head) - map * shared.value;
    const Matrix energy = heads.o_of(m.q_head).transpose() * heads.o_of(m.q_head);
    shared.lost += (rest * c * rest.transpose()).cwiseProduct(energy).sum();
    shared.total +=
        (heads.v_of(m.kv_head) * c * heads.v_of(m.kv_head).transpose()).cwiseProduct(energy).sum();
  }
  return shared;
}

}  // namespace gqa
