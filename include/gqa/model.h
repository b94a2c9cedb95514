// A decoder of the Llama or Mistral family.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "gqa/approx.h"
#include "gqa/attention_spec.h"
#include "gqa/config.h"
#include "gqa/context.h"
#include "gqa/kv_cache.h"
#include "gqa/progress.h"

namespace gqa {
#pragma GCC visibility push(default)

/// Weights (memory-mapped, in their stored type, or quantised) and the forward pass.
/// Thread-safety: const functions may run at the same time, each with its own Context and caches.
class Model {
 public:
  /// Opens a Hugging Face folder: config.json and safetensors, single or sharded. Checks every
  /// tensor's shape, and that every weight is finite. Throws Error (no_input, bad_data).
  static Model load(const std::filesystem::path& dir, const Progress& progress = {});
  /// The same with matrices of type weight_dtype. int8: all but the embedding table, of which only
  /// rows are looked up, are quantised into memory of their own (a tied head is, too). With m the
  /// largest magnitude of 64 inputs of an output (fewer at the end of a row), scale = m / 127 and
  /// q = w / scale, rounded; the model computes in f32 with scale * q, rounded once. Progress
  /// counts bytes ("quantise").
  static Model load(const std::filesystem::path& dir, WeightDType weight_dtype,
                    const Progress& progress = {});
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  const ModelConfig& config() const;
  /// f32, or the stored weights' type where they are 16-bit.
  KvDType default_kv_dtype() const;
  /// An empty cache of the model's shape. max_pages: as in KvCache; 0: as many as memory holds.
  KvCache make_cache(KvDType kv_dtype, int64_t max_pages = 0) const;
  /// Attention as the spec says, for caches that make_cache(kv_dtype) makes; with the model's key
  /// directions where it needs them. Throws Error: usage where the spec does not fit the model (one
  /// with a sliding window of its own combines with exact, block and window alone), and what
  /// key_directions() throws.
  Approximation make_approximation(const AttentionSpec& spec, KvDType kv_dtype) const;
  /// Reads key_directions.safetensors in the model's folder: "model.layers.N.key_directions" for
  /// each layer. No layers where there is no such file. Throws Error (io, bad_data, naming file and
  /// tensor) where a tensor is missing, unknown, of another shape, or not orthonormal to 0.001.
  KeyDirections key_directions() const;
  int64_t parameters() const;
  /// The memory of the weights that every forward pass and its logits read, whatever the tokens:
  /// all matrices, with the scales of quantised ones. An embedding table is among them only if it
  /// is also the head. Valid as long as the model.
  std::vector<std::span<const std::byte>> weights_read() const;

  /// Some tokens of one sequence of a cache; they follow what it holds.
  struct Step {
    int64_t sequence = 0;
    std::span<const int32_t> tokens;
  };
  /// Runs the tokens of all steps through the layers in one batch, appending to their sequences.
  /// hidden becomes [sum of tokens, width] f32: the normed last hidden states, in the order of the
  /// steps. Attention is exact, or what `approximation` makes of it. Throws Error, with the
  /// sequences as they were: (usage) for a cache of another shape, an id outside the vocabulary,
  /// more tokens than max_positions, a sequence that is not alive or occurs twice, or an
  /// approximation that make_approximation() would refuse; (resources) where the cache's pages do
  /// not suffice.
  void forward(Context& context, KvCache& cache, std::span<const Step> steps,
               std::vector<float>& hidden, Approximation* approximation = nullptr) const;
  /// Gives up the pages of a sequence that no query at `position` or after it sees: those before
  /// the model's sliding window, or before the window or block of an `attention` that is no more
  /// than a mask. Throws Error (usage) for a sequence that is not alive.
  void forget(KvCache& cache, int64_t sequence, int64_t position,
              const AttentionSpec& attention = ExactAttention{}) const;
  /// logits [rows, vocab_size] of hidden [rows, width].
  void logits(Context& context, std::span<const float> hidden, std::span<float> out) const;

 private:
  struct [[gnu::visibility("hidden")]] Impl;
  std::unique_ptr<Impl> impl_;
  explicit Model(std::unique_ptr<Impl> impl);
};

#pragma GCC visibility pop
}  // namespace gqa
