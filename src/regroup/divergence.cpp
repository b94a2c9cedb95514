#include "regroup/divergence.h"

#include <algorithm>
#include <vector>

#include "kernels/context.h"
#include "model/log_probabilities.h"
#include "model/rows.h"

namespace gqa {
namespace {

/// Rows at a time: logits of one model take at most 16 MB, or one row's.
int64_t rows_at_once(const ModelConfig& config) {
  return std::clamp<int64_t>((int64_t{4} << 20) / config.vocab_size, 1, 256);
}

/// What both models say of the same tokens, some at a time.
class Predictions {
 public:
  Predictions(Context& context, const ModelConfig& config, const Weights& weights)
      : context_(context.impl()),
        config_(config),
        weights_(weights),
        most_(rows_at_once(config)),
        normed_(most_, config.width),
        original_(most_, config.vocab_size),
        other_(most_, config.vocab_size) {}

  int64_t most_rows() const { return most_; }

  /// each [n] = KL(original || other) of n rows.
  void compare(const float* original, const float* other, int64_t n, double* each) {
    logits(original, n, original_);
    logits(other, n, other_);
    context_.pool.parallel_for(n, [&](int64_t r, int) {
      const auto row = [&](const Rows& rows) {
        return std::span(rows.data() + r * rows.cols(), static_cast<size_t>(rows.cols()));
      };
      each[r] = kl_divergence(row(original_), log_sum_exp(row(original_)), row(other_),
                              log_sum_exp(row(other_)));
    });
  }

 private:
  void logits(const float* hidden, int64_t n, Rows& out) {
    norm_rows(context_, weights_.final_norm, config_.rms_norm_eps, n, hidden, normed_.data());
    linear(context_, weights_.head, normed_.data(), n, out.data());
  }

  Context::Impl& context_;
  const ModelConfig& config_;
  const Weights& weights_;
  int64_t most_;
  Rows normed_, original_, other_;
};

}  // namespace

int64_t divergence_memory(const ModelConfig& config) {
  return int64_t{sizeof(float)} * rows_at_once(config) * (config.width + 2 * config.vocab_size);
}

double divergence(Context& context, const ModelConfig& config, const Weights& weights,
                  const RowsRef& original, const RowsRef& other, std::span<const RowRange> rows) {
  Predictions predictions(context, config, weights);
  std::vector<double> each;
  for (const RowRange& range : rows) {
    for (int64_t begin = range.begin; begin < range.end; begin += predictions.most_rows()) {
      const int64_t n = std::min(predictions.most_rows(), range.end - begin);
      each.resize(each.size() + static_cast<size_t>(n));
      const int64_t at = begin * config.width;
      predictions.compare(original.data() + at, other.data() + at, n, &*each.end() - n);
    }
  }
  double sum = 0;  // in order, so that threads change no bit
  for (const double kl : each) sum += kl;
  return sum / static_cast<double>(each.size());
}

}  // namespace gqa
