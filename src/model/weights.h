// A model's weights, found in its checkpoint and checked.
#pragma once

#include <filesystem>
#include <vector>

#include "core/aligned_buffer.h"
#include "gqa/config.h"
#include "gqa/progress.h"
#include "io/checkpoint.h"
#include "model/int8_matrix.h"
#include "model/linear.h"

namespace gqa {

struct LayerWeights {
  std::vector<float> attention_norm;
  Linear q, k, v, o;
  std::vector<float> mlp_norm;
  Linear gate, up, down;
};

/// All weights of a model. Matrices stay where they are mapped, in their stored type, unless they
/// are to be quantised; vectors are f32.
struct Weights {
  Linear embedding;  ///< [vocab_size][width]: a row per token
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;
  Linear head;
  int64_t parameters = 0;

  Weights(const ModelConfig& config, const std::filesystem::path& dir, WeightDType weight_dtype,
          const Progress& progress);
  /// What each forward pass multiplies by: the layers' matrices and the head.
  std::vector<const Linear*> matrices() const;

 private:
  Linear matrix(const std::string& name, int64_t out, int64_t in);
  void quantise_all(const Progress& progress);
  Linear linear(int64_t layer, const std::string& part, int64_t out, int64_t in, bool bias);

  Checkpoint checkpoint_;
  std::vector<AlignedBuffer> copies_;  ///< of tensors that lie unaligned in their file
  std::vector<Int8Matrix> quantised_;
};

}  // namespace gqa
