#include "regroup/grams.h"

#include <algorithm>
#include <cmath>

#include "core/half.h"
#include "regroup/products.h"

namespace gqa {
namespace {

/// Plane p of every head as rows: [heads, inputs].
ComplexMatrix plane_rows(const Matrix& matrix, int64_t head_dim, int64_t plane) {
  const int64_t heads = matrix.rows() / head_dim;
  ComplexMatrix rows(heads, matrix.cols());
  for (int64_t h = 0; h < heads; ++h) {
    rows.row(h).real() = matrix.row(h * head_dim + plane);
    rows.row(h).imag() = matrix.row(h * head_dim + plane + head_dim / 2);
  }
  return rows;
}

/// times(W) = W C.
template <typename Times>
HeadGrams make(const Heads& heads, const Times& times) {
  keep_blas_on_one_thread();
  const int64_t half = heads.head_dim / 2;
  HeadGrams grams;
  grams.head_dim = heads.head_dim;
  grams.q_begin = heads.q_begin;
  {
    const Matrix keys = times(heads.k);
    for (int64_t p = 0; p < half; ++p) {
      grams.keys.emplace_back(plane_rows(keys, heads.head_dim, p) *
                              plane_rows(heads.k, heads.head_dim, p).adjoint());
    }
  }
  {
    const Matrix queries = times(heads.q);
    grams.queries.resize(half, heads.q_heads());
    for (int64_t h = 0; h < heads.q_heads(); ++h) {
      const Vector energy = queries.middleRows(h * heads.head_dim, heads.head_dim)
                                .cwiseProduct(heads.q_of(h))
                                .rowwise()
                                .sum();
      grams.queries.col(h) = (energy.head(half) + energy.tail(half)).cwiseMax(0.0);
    }
  }
  grams.values = times(heads.v) * heads.v.transpose();
  for (int64_t h = 0; h < heads.q_heads(); ++h) {
    grams.outputs.emplace_back(heads.o_of(h).transpose() * heads.o_of(h));
  }
  return grams;
}

}  // namespace

Matrix HeadGrams::outputs_of(int64_t g) const {
  Matrix sum = Matrix::Zero(head_dim, head_dim);
  const auto at = static_cast<size_t>(g);
  for (int64_t h = q_begin[at]; h < q_begin[at + 1]; ++h) sum += outputs[static_cast<size_t>(h)];
  return sum;
}

double HeadGrams::query_weight(int64_t plane, int64_t g) const {
  const auto at = static_cast<size_t>(g);
  return std::sqrt(queries.row(plane).segment(q_begin[at], q_begin[at + 1] - q_begin[at]).sum());
}

HeadGrams make_grams(const Heads& heads, const Vector& variance) {
  return make(heads, [&](const Matrix& w) { return Matrix(w * variance.asDiagonal()); });
}

HeadGrams make_grams(const Heads& heads, const Matrix& moments) {
  return make(heads, [&](const Matrix& w) { return Matrix(w * moments); });
}

HeadGrams load_grams(const ModelConfig& config, const Checkpoint& checkpoint, int64_t layer) {
  const AttentionTensors tensors = attention_tensors(checkpoint, layer);
  const Tensor& norm = attention_norm(checkpoint, layer);
  check_finite(norm);
  return make_grams(load_heads(config, layer, tensors),
                    assumed_variance(norm, tensors.q_bias != nullptr));
}

Vector assumed_variance(const Tensor& norm_weight, bool has_biases) {
  const int64_t width = norm_weight.elements;
  Vector variance(width + (has_biases ? 1 : 0));
  for (int64_t i = 0; i < width; ++i) {
    const auto w = static_cast<double>(load_element(norm_weight.data, *norm_weight.dtype, i));
    variance[i] = w * w;
  }
  if (has_biases) variance[variance.size() - 1] = 1.0;
  return variance;
}

}  // namespace gqa
