#include "regroup/mlp_block.h"

#include <cmath>

#include "model/rows.h"
#include "regroup/products.h"

namespace gqa {
namespace {

template <typename Array>
auto sigmoid(const Array& x) {
  return (1.0f + (-x).exp()).inverse().eval();
}

}  // namespace

MlpBlock::Affine MlpBlock::decoded(const Context::Impl& context, const Linear& linear) {
  Affine affine;
  affine.weight.resize(linear.out, linear.in);
  context.kernels->decode(linear.dtype, linear.weight, affine.weight.size(), affine.weight.data());
  affine.bias = Eigen::Map<const Eigen::RowVectorXf>(linear.bias.data(), std::ssize(linear.bias));
  return affine;
}

Rows MlpBlock::apply(const Affine& affine, const Rows& x) const {
  Rows y = times_transposed(context_, x, affine.weight);
  if (affine.bias.size() != 0) y.rowwise() += affine.bias;
  return y;
}

MlpBlock::MlpBlock(Context::Impl& context, const LayerWeights& layer, double rms_norm_eps)
    : context_(context),
      eps_(static_cast<float>(rms_norm_eps)),
      norm_(
          Eigen::Map<const Eigen::RowVectorXf>(layer.mlp_norm.data(), std::ssize(layer.mlp_norm))),
      gate_(decoded(context, layer.gate)),
      up_(decoded(context, layer.up)),
      down_(decoded(context, layer.down)) {}

Rows MlpBlock::run(const Rows& hidden) {
  hidden_ = hidden;
  scales_.resize(hidden.rows());
  Rows normed(hidden.rows(), hidden.cols());
  for_rows(context_, hidden.rows(), [&](int64_t r) {
    const float mean = hidden.row(r).squaredNorm() / static_cast<float>(hidden.cols());
    scales_[r] = 1.0f / std::sqrt(mean + eps_);
    normed.row(r) = scales_[r] * hidden.row(r).cwiseProduct(norm_);
  });
  opened_ = apply(gate_, normed);
  fed_ = apply(up_, normed);
  Rows product(fed_.rows(), fed_.cols());
  for_rows(context_, hidden.rows(), [&](int64_t r) {
    const auto opened = opened_.row(r).array();
    product.row(r).array() = opened * sigmoid(opened) * fed_.row(r).array();
  });
  return hidden + apply(down_, product);
}

Rows MlpBlock::pullback(const Rows& cotangent) const {
  Rows by_gate = times_transposed(context_, cotangent, down_.weight.transpose());
  Rows by_up(by_gate.rows(), by_gate.cols());
  for_rows(context_, by_gate.rows(), [&](int64_t r) {
    const auto opened = opened_.row(r).array();
    const auto share = sigmoid(opened);
    by_up.row(r).array() = by_gate.row(r).array() * opened * share;
    by_gate.row(r).array() *= fed_.row(r).array() * share * (1.0f + opened * (1.0f - share));
  });
  Rows by_normed = times_transposed(context_, by_gate, gate_.weight.transpose());
  by_normed += times_transposed(context_, by_up, up_.weight.transpose());
  // n = s h w with s = (mean(h^2) + eps)^-1/2, so that dh = s w dn - s^3 / width <w dn, h> h.
  Rows gradient = cotangent;
  for_rows(context_, gradient.rows(), [&](int64_t r) {
    const float s = scales_[r];
    const Eigen::RowVectorXf by_scaled = by_normed.row(r).cwiseProduct(norm_);
    const float along = by_scaled.dot(hidden_.row(r)) / static_cast<float>(hidden_.cols());
    gradient.row(r) += s * by_scaled - s * s * s * along * hidden_.row(r);
  });
  return gradient;
}

}  // namespace gqa
