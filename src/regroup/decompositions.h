// Decompositions of matrices. Eigen's take long to compile, and do so once, in decompositions.cpp.
#pragma once

#include "regroup/matrix.h"

namespace gqa {

enum class Eigenvectors { wanted, not_wanted };

/// Eigenvalues, in ascending order, and eigenvectors, as columns, of a symmetric matrix, whose
/// lower triangle is read.
class SymmetricEigen {
 public:
  explicit SymmetricEigen(const Matrix& symmetric, Eigenvectors vectors = Eigenvectors::wanted);
  const Vector& eigenvalues() const { return values_; }
  const Eigen::MatrixXd& eigenvectors() const { return vectors_; }

 private:
  Vector values_;
  Eigen::MatrixXd vectors_;
};

/// The same of a Hermitian matrix.
class HermitianEigen {
 public:
  explicit HermitianEigen(const Eigen::MatrixXcd& hermitian,
                          Eigenvectors vectors = Eigenvectors::wanted);
  const Vector& eigenvalues() const { return values_; }
  const Eigen::MatrixXcd& eigenvectors() const { return vectors_; }

 private:
  Vector values_;
  Eigen::MatrixXcd vectors_;
};

/// In descending order.
Vector singular_values(const Eigen::MatrixXd& m);
/// The orthogonal map that brings what m pairs closest: U V^T of its singular vectors (Schönemann
/// 1966).
Matrix closest_rotation(const Matrix& m);

/// Q of m = Q R, for a square m: of random elements, a random orthogonal (unitary) matrix.
Eigen::MatrixXd orthogonal_factor(const Eigen::MatrixXd& m);
Eigen::MatrixXcd orthogonal_factor(const Eigen::MatrixXcd& m);

/// X with X m = right, for a symmetric (Hermitian) m that is positive.
Matrix right_divided(const Matrix& right, const Matrix& m);
Eigen::MatrixXcd right_divided(const Eigen::MatrixXcd& right, const Eigen::MatrixXcd& m);
/// X with m X = right, in place of `right`; m, symmetric and positive, is overwritten.
void solve_in_place(Matrix& m, Matrix& right);

}  // namespace gqa
