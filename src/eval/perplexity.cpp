#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/fail.h"
#include "gqa/eval.h"
#include "kernels/context.h"
#include "model/log_probabilities.h"

namespace gqa {
namespace {

/// The sums that the results are means of.
struct Totals {
  double nll = 0;
  double kl = 0;
  int64_t agreed = 0;
  int64_t tokens = 0;
};

/// What one row of logits says about the next token.
struct RowScore {
  double nll = 0;
  double kl = 0;
  bool agreed = false;
};

RowScore score_row(std::span<const float> logits, std::span<const float> other, int32_t target) {
  RowScore score;
  const double normaliser = log_sum_exp(logits);
  score.nll = normaliser - logits[static_cast<size_t>(target)];
  if (other.empty()) return score;
  score.kl = kl_divergence(other, log_sum_exp(other), logits, normaliser);
  const auto top = [](std::span<const float> x) {
    return std::max_element(x.begin(), x.end()) - x.begin();
  };
  score.agreed = top(logits) == top(other);
  return score;
}

/// A model at work: hidden states of one window after the other.
class Reader {
 public:
  Reader(Context& context, const Model& model, KvDType kv_dtype, const AttentionSpec& attention)
      : context_(context),
        model_(model),
        cache_(model.make_cache(kv_dtype)),
        sequence_(cache_.create()) {
    if (!std::holds_alternative<ExactAttention>(attention)) {
      approximation_ = model.make_approximation(attention, kv_dtype);
    }
  }

  void read(std::span<const int32_t> window) {
    cache_.truncate(sequence_, 0);
    const Model::Step step{sequence_, window};
    model_.forward(context_, cache_, std::span(&step, 1), hidden_,
                   approximation_ ? &*approximation_ : nullptr);
  }

  /// Empty where attention is exact.
  std::optional<ApproxStats> attention() const {
    if (!approximation_) return std::nullopt;
    return approximation_->stats();
  }

  /// Logits of rows [begin, begin + n) of the window; valid until the next call.
  std::span<const float> logits(int64_t begin, int64_t n) {
    const auto& c = model_.config();
    logits_.resize(static_cast<size_t>(n * c.vocab_size));
    const std::span<const float> rows(hidden_.data() + begin * c.width,
                                      static_cast<size_t>(n * c.width));
    model_.logits(context_, rows, logits_);
    return logits_;
  }

 private:
  Context& context_;
  const Model& model_;
  KvCache cache_;
  int64_t sequence_;
  std::optional<Approximation> approximation_;
  std::vector<float> hidden_;
  std::vector<float> logits_;
};

/// Rows of logits at a time: at most 16 MB of them.
int64_t logit_rows(int64_t vocab_size) {
  return std::clamp<int64_t>((int64_t{4} << 20) / vocab_size, 1, 256);
}

void score_window(Context& context, Reader& reader, Reader* other, std::span<const int32_t> window,
                  int64_t vocab_size, Totals& totals) {
  reader.read(window);
  if (other) other->read(window);
  const auto scored = static_cast<int64_t>(window.size()) - 1;
  std::vector<RowScore> scores(static_cast<size_t>(scored));
  for (int64_t begin = 0; begin < scored; begin += logit_rows(vocab_size)) {
    const int64_t n = std::min(scored - begin, logit_rows(vocab_size));
    const auto mine = reader.logits(begin, n);
    const auto theirs = other ? other->logits(begin, n) : std::span<const float>();
    const auto row = [&](std::span<const float> all, int64_t i) {
      return all.empty() ? all
                         : all.subspan(static_cast<size_t>(i * vocab_size),
                                       static_cast<size_t>(vocab_size));
    };
    context.impl().pool.parallel_for(n, [&](int64_t i, int) {
      scores[static_cast<size_t>(begin + i)] =
          score_row(row(mine, i), row(theirs, i), window[static_cast<size_t>(begin + i + 1)]);
    });
  }
  for (const RowScore& score : scores) {  // in order, so that threads change no bit
    totals.nll += score.nll;
    totals.kl += score.kl;
    totals.agreed += score.agreed;
  }
  totals.tokens += scored;
}

int64_t window_limit(const Model& model, const Model* against, int64_t wanted) {
  int64_t limit = model.config().max_positions;
  if (against) limit = std::min(limit, against->config().max_positions);
  if (wanted == 0) return std::min<int64_t>(limit, 2048);
  require(wanted >= 2 && wanted <= limit, "context is {}, expected 2 to {} (the model's limit)",
          wanted, limit);
  return wanted;
}

}  // namespace

EvalResult evaluate(Context& context, const Model& model, const Tokenizer& tokenizer,
                    std::string_view text, const EvalOptions& options, const Model* against,
                    const Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const ModelConfig& c = model.config();
  if (against && against->config().vocab_size != c.vocab_size) {
    fail(ErrorKind::bad_data, "the models have vocabularies of {} and {} tokens: expected the same",
         c.vocab_size, against->config().vocab_size);
  }
  const int64_t window_tokens = window_limit(model, against, options.context);
  const std::vector<int32_t> ids = tokenizer.encode(text);
  const size_t step = static_cast<size_t>(window_tokens) - 1;
  if (ids.empty() || (!c.bos_token_id && ids.size() < 2)) {
    fail(ErrorKind::bad_data, "the text has {} tokens: nothing to score", ids.size());
  }

  const auto kv_dtype = [&](const Model& m) {
    return options.kv_dtype.value_or(m.default_kv_dtype());
  };
  Reader reader(context, model, kv_dtype(model), options.attention);
  std::optional<Reader> other;
  if (against) other.emplace(context, *against, kv_dtype(*against), ExactAttention{});
  Totals totals;
  std::vector<int32_t> window;
  for (size_t at = 0; at < ids.size(); at += step) {
    window.clear();
    if (c.bos_token_id) window.push_back(*c.bos_token_id);
    const size_t end = std::min(ids.size(), at + step);
    window.insert(window.end(), ids.begin() + static_cast<int64_t>(at),
                  ids.begin() + static_cast<int64_t>(end));
    score_window(context, reader, other ? &*other : nullptr, window, c.vocab_size, totals);
    if (progress) progress("eval", static_cast<int64_t>(end), static_cast<int64_t>(ids.size()));
  }

  const auto tokens = static_cast<double>(totals.tokens);
  EvalResult result;
  result.nll = totals.nll / tokens;
  result.ppl = std::exp(result.nll);
  result.bits_per_byte = totals.nll / std::numbers::ln2 / static_cast<double>(text.size());
  result.tokens = totals.tokens;
  result.context = window_tokens;
  result.attention = reader.attention();
  if (against) {
    result.kl = totals.kl / tokens;
    result.top1_agreement = static_cast<double>(totals.agreed) / tokens;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace gqa
