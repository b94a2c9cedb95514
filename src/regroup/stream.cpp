#include "regroup/stream.h"

#include "model/rows.h"

namespace gqa {

Stream::Stream(Context& context, const ModelConfig& config, const Weights& weights,
               const CalibrationWindows& text)
    : context_(context), config_(config), weights_(weights), hidden_(text.tokens(), config.width) {
  for (size_t i = 0; i < text.windows.size(); ++i) {
    embed_rows(context.impl(), weights.embedding, text.windows[i],
               hidden_.data() + text.begin[i] * config.width);
  }
}

Rows Stream::attention_inputs(int64_t layer) const {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  Rows normed(hidden_.rows(), hidden_.cols());
  norm_rows(context_.impl(), w.attention_norm, config_.rms_norm_eps, hidden_.rows(), hidden_.data(),
            normed.data());
  if (!config_.attention_bias) return normed;
  Rows inputs(normed.rows(), normed.cols() + 1);
  inputs.leftCols(normed.cols()) = normed;
  inputs.rightCols<1>().setOnes();
  return inputs;
}

void Stream::pass(int64_t layer, const Rows& attention_output) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  hidden_ += attention_output;
  if (!w.o.bias.empty()) {
    hidden_.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(w.o.bias.data(), config_.width);
  }
  constexpr int64_t lump = 1024;  // bounds the MLP's memory
  Rows normed(std::min(lump, hidden_.rows()), config_.width);
  Rows gate(normed.rows(), config_.mlp_width);
  Rows up(normed.rows(), config_.mlp_width);
  for (int64_t r = 0; r < hidden_.rows(); r += lump) {
    const int64_t n = std::min(lump, hidden_.rows() - r);
    float* rows = hidden_.data() + r * config_.width;
    norm_rows(context_.impl(), w.mlp_norm, config_.rms_norm_eps, n, rows, normed.data());
    mlp_rows(context_.impl(), w, n, normed.data(), gate.data(), up.data(), normed.data());
    add_rows(context_.impl(), n, config_.width, rows, normed.data());
  }
}

}  // namespace gqa
