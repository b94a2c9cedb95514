// The steps of a forward pass on rows (tokens) of activations, f32 and dense.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/checked.h"
#include "model/weights.h"

namespace gqa {

/// body(row) for each row, shared out in lumps that are worth a thread.
template <typename Body>
void for_rows(Context::Impl& context, int64_t rows, const Body& body) {
  constexpr int64_t lump = 16;
  context.pool.parallel_for(ceil_div(rows, lump), [&](int64_t i, int) {
    for (int64_t r = i * lump; r < std::min(rows, (i + 1) * lump); ++r) body(r);
  });
}

/// out [ids][width] = the ids' rows of the embedding table.
void embed_rows(Context::Impl& context, const Linear& table, std::span<const int32_t> ids,
                float* out);

/// y [rows][weight.size()] = rms_norm(x) * weight. y may be x.
void norm_rows(Context::Impl& context, std::span<const float> weight, double eps, int64_t rows,
               const float* x, float* y);

/// hidden [rows][width] += update.
void add_rows(Context::Impl& context, int64_t rows, int64_t width, float* hidden,
              const float* update);

/// The gated MLP of a layer: out [rows][width] from normed [rows][width]; gate and up are room for
/// [rows][mlp_width] each. out may be normed.
void mlp_rows(Context::Impl& context, const LayerWeights& layer, int64_t rows, const float* normed,
              float* gate, float* up, float* out);

}  // namespace gqa
