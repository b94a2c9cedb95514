// Dense linear algebra in double: Eigen, its large products done by BLAS.
#pragma once

#include <Eigen/Dense>

namespace gqa {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;
using ComplexMatrix =
    Eigen::Matrix<std::complex<double>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ComplexVector = Eigen::VectorXcd;
/// f32 activations, a row a token.
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// The same wherever they lie; to be passed by reference.
using RowsRef = Eigen::Ref<const Rows>;

}  // namespace gqa
