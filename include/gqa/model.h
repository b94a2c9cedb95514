// A decoder of the Llama family.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "gqa/config.h"
#include "gqa/context.h"
#include "gqa/kv_cache.h"
#include "gqa/progress.h"

namespace gqa {

/// Weights (memory-mapped, in their stored type) and the forward pass.
/// Thread-safety: const functions may run at the same time, each with its own Context and caches.
class Model {
 public:
  /// Opens a Hugging Face folder: config.json and safetensors, single or sharded. Checks every
  /// tensor's shape, and that every weight is finite. Throws Error (no_input, bad_data).
  static Model load(const std::filesystem::path& dir, const Progress& progress = {});
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  const ModelConfig& config() const;
  /// f32, or the weights' type where they are 16-bit.
  DType default_kv_dtype() const;
  KvCache make_cache(DType kv_dtype) const;
  int64_t parameters() const;

  /// Some tokens of one sequence; they follow what its cache holds.
  struct Step {
    KvCache* cache = nullptr;
    std::span<const int32_t> tokens;
  };
  /// Runs the tokens of all steps through the layers in one batch, appending to the caches. hidden
  /// becomes [sum of tokens, width] f32: the normed last hidden states, in the order of the steps.
  /// Throws Error (usage) for an id outside the vocabulary or more tokens than max_positions.
  void forward(Context& context, std::span<const Step> steps, std::vector<float>& hidden) const;
  /// logits [rows, vocab_size] of hidden [rows, width].
  void logits(Context& context, std::span<const float> hidden, std::span<float> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  explicit Model(std::unique_ptr<Impl> impl);
};

}  // namespace gqa
