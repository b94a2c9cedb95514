#include "regroup/decompositions.h"

namespace gqa {
namespace {

int options(Eigenvectors vectors) {
  return vectors == Eigenvectors::wanted ? Eigen::ComputeEigenvectors : Eigen::EigenvaluesOnly;
}

template <typename Square>
Square q_of(const Square& m) {
  const Eigen::HouseholderQR<Square> qr(m);
  return Square(qr.householderQ() * Square::Identity(m.rows(), m.cols()));
}

}  // namespace

SymmetricEigen::SymmetricEigen(const Matrix& symmetric, Eigenvectors vectors) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(symmetric, options(vectors));
  values_ = solver.eigenvalues();
  if (vectors == Eigenvectors::wanted) vectors_ = solver.eigenvectors();
}

HermitianEigen::HermitianEigen(const Eigen::MatrixXcd& hermitian, Eigenvectors vectors) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXcd> solver(hermitian, options(vectors));
  values_ = solver.eigenvalues();
  if (vectors == Eigenvectors::wanted) vectors_ = solver.eigenvectors();
}

Vector singular_values(const Eigen::MatrixXd& m) {
  return Eigen::BDCSVD<Eigen::MatrixXd>(m).singularValues();
}

Matrix closest_rotation(const Matrix& m) {
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(m, Eigen::ComputeFullU | Eigen::ComputeFullV);
  return svd.matrixU() * svd.matrixV().transpose();
}

Eigen::MatrixXd orthogonal_factor(const Eigen::MatrixXd& m) { return q_of(m); }
Eigen::MatrixXcd orthogonal_factor(const Eigen::MatrixXcd& m) { return q_of(m); }

Matrix right_divided(const Matrix& right, const Matrix& m) {
  return m.llt().solve(right.transpose()).transpose();
}
Eigen::MatrixXcd right_divided(const Eigen::MatrixXcd& right, const Eigen::MatrixXcd& m) {
  return m.llt().solve(right.adjoint()).adjoint();
}

void solve_in_place(Matrix& m, Matrix& right) {
  const Eigen::LLT<Eigen::Ref<Matrix>> factors(m);
  factors.solveInPlace(right);
}

}  // namespace gqa
