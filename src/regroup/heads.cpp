#include "regroup/heads.h"

#include "core/half.h"
#include "model/layout.h"

namespace gqa {
namespace {

/// Weights [rows, width], and the bias as one more column.
Matrix matrix_of(const Tensor& weight, const Tensor* bias) {
  const int64_t rows = weight.shape[0];
  const int64_t width = weight.shape[1];
  Matrix matrix(rows, width + (bias != nullptr ? 1 : 0));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      matrix(r, c) = static_cast<double>(load_element(weight.data, *weight.dtype, r * width + c));
    }
    if (bias != nullptr) {
      matrix(r, width) = static_cast<double>(load_element(bias->data, *bias->dtype, r));
    }
  }
  return matrix;
}

}  // namespace

AttentionTensors attention_tensors(const Checkpoint& checkpoint, int64_t layer) {
  const auto find = [&](std::string_view part) {
    return checkpoint.find(layer_tensor(layer, part));
  };
  return {.q = find("self_attn.q_proj.weight"),
          .k = find("self_attn.k_proj.weight"),
          .v = find("self_attn.v_proj.weight"),
          .o = find("self_attn.o_proj.weight"),
          .q_bias = find("self_attn.q_proj.bias"),
          .k_bias = find("self_attn.k_proj.bias"),
          .v_bias = find("self_attn.v_proj.bias")};
}

const Tensor& attention_norm(const Checkpoint& checkpoint, int64_t layer) {
  return checkpoint.at(layer_tensor(layer, "input_layernorm.weight"));
}

Heads load_heads(const ModelConfig& config, int64_t layer, const AttentionTensors& tensors) {
  for (const Tensor* t : {tensors.q, tensors.k, tensors.v, tensors.o, tensors.q_bias,
                          tensors.k_bias, tensors.v_bias}) {
    if (t != nullptr) check_finite(*t);
  }
  Heads heads;
  heads.head_dim = config.head_dim;
  heads.q_begin.push_back(0);
  for (const int64_t size : config.sizes_of_groups(layer)) {
    heads.q_begin.push_back(heads.q_begin.back() + size);
  }
  heads.q = matrix_of(*tensors.q, tensors.q_bias);
  heads.k = matrix_of(*tensors.k, tensors.k_bias);
  heads.v = matrix_of(*tensors.v, tensors.v_bias);
  heads.o = matrix_of(*tensors.o, nullptr);
  return heads;
}

std::vector<int64_t> query_heads_of(const Heads& heads, const std::vector<int64_t>& group) {
  std::vector<int64_t> query_heads;
  for (const int64_t g : group) {
    const auto at = static_cast<size_t>(g);
    for (int64_t h = heads.q_begin[at]; h < heads.q_begin[at + 1]; ++h) query_heads.push_back(h);
  }
  return query_heads;
}

Heads regrouped(const Heads& heads, const HeadGroups& groups) {
  const int64_t n_groups = std::ssize(groups);
  Heads result;
  result.head_dim = heads.head_dim;
  result.q_begin.push_back(0);
  result.q.resize(heads.q.rows(), heads.q.cols());
  result.o.resize(heads.o.rows(), heads.o.cols());
  result.k.setZero(n_groups * heads.head_dim, heads.inputs());
  result.v.setZero(n_groups * heads.head_dim, heads.inputs());
  int64_t to = 0;
  for (const auto& group : groups) {
    for (const int64_t h : query_heads_of(heads, group)) {
      result.q_of(to) = heads.q_of(h);
      result.o_of(to) = heads.o_of(h);
      ++to;
    }
    result.q_begin.push_back(to);
  }
  return result;
}

ComplexMatrix planes(const Eigen::Ref<const Matrix>& head) {
  const int64_t half = head.rows() / 2;
  ComplexMatrix result(half, head.cols());
  result.real() = head.topRows(half);
  result.imag() = head.bottomRows(half);
  return result;
}

Matrix from_planes(const ComplexMatrix& planes) {
  Matrix head(2 * planes.rows(), planes.cols());
  head.topRows(planes.rows()) = planes.real();
  head.bottomRows(planes.rows()) = planes.imag();
  return head;
}

}  // namespace gqa
