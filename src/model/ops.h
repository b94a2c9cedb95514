// The small operations between the matrix products.
#pragma once

#include <cstdint>

namespace gqa {

/// y [n] = weight * x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019).
void rms_norm(const float* x, const float* weight, int64_t n, double eps, float* y);

/// gate [n] = silu(gate) * up, silu(z) = z / (1 + exp(-z)) (Shazeer 2020).
void silu_multiply(float* gate, const float* up, int64_t n);

/// x [n] += y [n].
void add(float* x, const float* y, int64_t n);

}  // namespace gqa
