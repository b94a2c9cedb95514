#include "regroup/shared_values.h"

#include <algorithm>

#include "regroup/values.h"

namespace gqa {
namespace {

using Solver = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>;

/// On the diagonals that are inverted, beside their mean.
constexpr double inputs_ridge = 1e-8;
constexpr double output_ridge = 1e-6;

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

/// The top `rank` directions of the columns of b, as rows of unit length: from whichever of the two
/// eigenproblems is the smaller.
Matrix principal_directions(const Matrix& b, int64_t rank) {
  if (b.rows() <= b.cols()) {
    const Solver solver(b * b.transpose());
    return solver.eigenvectors().rightCols(rank).transpose();
  }
  const Solver solver(b.transpose() * b);
  const Vector squares = solver.eigenvalues().tail(rank).cwiseMax(0.0);
  const Matrix right = solver.eigenvectors().rightCols(rank);
  Matrix left = (b * right).transpose();
  for (int64_t i = 0; i < rank; ++i) {
    const double length = left.row(i).norm();
    if (length > 0) left.row(i) /= length;
  }
  return left;
}

}  // namespace

SharedValue shared_value(const Heads& heads, const std::vector<int64_t>& group,
                         const std::vector<Matrix>& moments) {
  const std::vector<Member> members = members_of(heads, group);
  const int64_t d = heads.head_dim;
  Matrix mean = Matrix::Zero(heads.inputs(), heads.inputs());
  for (const Member& m : members) mean += moments[static_cast<size_t>(m.q_head)];
  mean /= static_cast<double>(members.size());
  mean.diagonal().array() +=
      std::max(inputs_ridge * mean.trace() / static_cast<double>(mean.rows()), 1e-300);
  const Eigen::LLT<Matrix> root(mean);

  Matrix columns(heads.inputs(), std::ssize(members) * d);
  for (size_t i = 0; i < members.size(); ++i) {
    const Member& m = members[i];
    const Matrix output = square_root(heads.o_of(m.q_head).transpose() * heads.o_of(m.q_head));
    columns.middleCols(static_cast<int64_t>(i) * d, d) = moments[static_cast<size_t>(m.q_head)] *
                                                         heads.v_of(m.kv_head).transpose() *
                                                         output.transpose();
  }
  root.matrixL().solveInPlace(columns);
  SharedValue shared;
  shared.value = root.matrixU().solve(principal_directions(columns, d).transpose()).transpose();

  for (const Member& m : members) {
    const Matrix& c = moments[static_cast<size_t>(m.q_head)];
    const Matrix seen = c * shared.value.transpose();
    Matrix own = shared.value * seen;
    own.diagonal().array() += std::max(output_ridge * own.trace() / static_cast<double>(d), 1e-300);
    const Matrix cross = heads.v_of(m.kv_head) * seen;  // E[v v'^T]
    const Matrix map = own.llt().solve(cross.transpose()).transpose();
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
