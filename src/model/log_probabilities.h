// What logits say about the next token, in double.
#pragma once

#include <span>

namespace gqa {

/// log(sum(exp(x))): what turns logits into log probabilities.
double log_sum_exp(std::span<const float> x);

/// KL(original || other) of two rows of logits, in nats; their log_sum_exp() is at hand.
double kl_divergence(std::span<const float> original, double original_normaliser,
                     std::span<const float> other, double other_normaliser);

}  // namespace gqa
