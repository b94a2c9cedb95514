// A model's weights, found in its checkpoint and checked.
#pragma once

#include <filesystem>
#include <vector>

#include "core/aligned_buffer.h"
#include "gqa/config.h"
#include "gqa/progress.h"
#include "io/checkpoint.h"
#include "model/linear.h"

namespace gqa {

struct LayerWeights {
  std::vector<float> attention_norm;
  Linear q, k, v, o;
  std::vector<float> mlp_norm;
  Linear gate, up, down;
};

/// All weights of a model. Matrices stay where they are mapped, in their stored type; vectors are
/// f32.
struct Weights {
  Linear embedding;  ///< [vocab_size][width]: a row per token
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;
  Linear head;
  int64_t parameters = 0;

  Weights(const ModelConfig& config, const std::filesystem::path& dir, const Progress& progress);

 private:
  Linear matrix(const std::string& name, int64_t out, int64_t in);
  Linear linear(int64_t layer, const std::string& part, int64_t out, int64_t in, bool bias);

  Checkpoint checkpoint_;
  std::vector<AlignedBuffer> copies_;  ///< of tensors that lie unaligned in their file
};

}  // namespace gqa
