#include "regroup/stream.h"

#include <algorithm>
#include <utility>

#include "model/rows.h"

namespace gqa {

Stream::Stream(Context& context, const ModelConfig& config, const Weights& weights,
               const CalibrationWindows& text, ScratchPlace place)
    : context_(context),
      config_(config),
      weights_(weights),
      hidden_(std::move(place), text.tokens(), config.width) {
  for (size_t i = 0; i < text.windows.size(); ++i) {
    embed_rows(context.impl(), weights.embedding, text.windows[i],
               hidden_.map().row(text.begin[i]).data());
  }
}

ScratchRows Stream::attention_inputs(int64_t layer) const {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  ScratchRows inputs(hidden_.place(), hidden_.rows(),
                     hidden_.cols() + (config_.attention_bias ? 1 : 0));
  if (config_.attention_bias) inputs.map().rightCols<1>().setOnes();
  Rows normed(std::min(rows_at_a_time, hidden_.rows()), config_.width);
  for (int64_t r = 0; r < hidden_.rows(); r += rows_at_a_time) {
    const int64_t n = std::min(rows_at_a_time, hidden_.rows() - r);
    norm_rows(context_.impl(), w.attention_norm, config_.rms_norm_eps, n,
              hidden_.map().row(r).data(), normed.data());
    inputs.map().block(r, 0, n, config_.width) = normed.topRows(n);
  }
  return inputs;
}

void Stream::pass(int64_t layer, const RowsRef& attention_output) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  Rows normed(std::min(rows_at_a_time, hidden_.rows()), config_.width);
  Rows gate(normed.rows(), config_.mlp_width);
  Rows up(normed.rows(), config_.mlp_width);
  for (int64_t r = 0; r < hidden_.rows(); r += rows_at_a_time) {
    const int64_t n = std::min(rows_at_a_time, hidden_.rows() - r);
    auto hidden = hidden_.map().middleRows(r, n);
    hidden += attention_output.middleRows(r, n);
    if (!w.o.bias.empty()) {
      hidden.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(w.o.bias.data(), config_.width);
    }
    norm_rows(context_.impl(), w.mlp_norm, config_.rms_norm_eps, n, hidden.data(), normed.data());
    mlp_rows(context_.impl(), w, n, normed.data(), gate.data(), up.data(), normed.data());
    add_rows(context_.impl(), n, config_.width, hidden.data(), normed.data());
  }
}

}  // namespace gqa
