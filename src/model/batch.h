// Many prompts continued together: one forward pass at a time, over all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gqa/approx.h"
#include "gqa/attention_spec.h"
#include "gqa/generate.h"
#include "gqa/kv_cache.h"
#include "gqa/model.h"
#include "gqa/tokenizer.h"
#include "model/continuation.h"
#include "model/shared_prefix.h"

namespace gqa {

/// Prompts are read in pieces of this many tokens, so that activations stay small.
inline constexpr int64_t tokens_to_read = 512;

/// A prompt that has been checked.
struct Request {
  std::vector<int32_t> prompt;  ///< at least one id, BOS included
  int64_t max_tokens = 0;       ///< 1 or more; they and the prompt fit the model's context
};

/// Turns until nothing is left: `while (batch.forward()) batch.draw();`. Between the two, and after
/// each, result() shows how far every prompt is.
///
/// Prompts join in their order as others end, at most `size` at a time. One that starts like an
/// earlier one (share_prefixes) forks that one's sequence instead of computing its tokens again;
/// for this it waits until they are there, and those behind it wait too. That costs little: what
/// they wait for already fills the forward pass. A sequence that has ended but still lends its
/// prefix is cut to what is needed and does not count among `size`; no more than `size` do so.
class Batch {
 public:
  /// Context, model and tokenizer must stay where they are. size: 1 or more. Throws Error (usage)
  /// for a sampling option out of range, or attention that does not fit the model.
  Batch(Context& context, const Model& model, const Tokenizer& tokenizer,
        const GenerateOptions& options, std::vector<Request> requests, int64_t size);

  /// Lets prompts join and computes one token of each that decodes and up to tokens_to_read of
  /// those that are still being read. False if nothing is left to do.
  bool forward();
  /// Draws a token for every prompt whose ids have all been computed.
  void draw();

  /// What has been made of a prompt so far; its text once it has been read.
  const Generated& result(size_t index) const { return entries_[index].result; }
  bool ended(size_t index) const { return entries_[index].state == State::ended; }
  /// Gives away the result of a prompt that has ended.
  Generated take(size_t index) { return std::move(entries_[index].result); }

  /// Tokens in caches or drawn; those that an early end leaves out count as done.
  int64_t done() const { return done_; }
  /// done() at the end.
  int64_t total() const { return total_; }
  /// Without the seconds.
  const BatchStats& stats() const { return stats_; }

 private:
  enum class State { waiting, reading, decoding, ended };
  struct Entry {
    Generated result;
    int64_t max_tokens = 0;
    SharedPrefix share;
    State state = State::waiting;
    int64_t sequence = -1;                  ///< in the cache; -1 where it holds none
    std::unique_ptr<Continuation> running;  ///< while reading or decoding
  };

  void join();
  void end(Entry& entry);
  void give_up_unneeded(Entry& entry);
  std::vector<Model::Step> next_steps() const;

  Context* context_;
  const Model* model_;
  const Tokenizer* tokenizer_;
  Sampler sampler_;  ///< draws nothing itself: each prompt gets a copy, as if it were alone
  AttentionSpec attention_;
  KvCache cache_;
  std::optional<Approximation> approximation_;  ///< none where attention is exact
  size_t size_;
  std::vector<Entry> entries_;
  size_t next_ = 0;              ///< the first that has not joined
  std::vector<size_t> active_;   ///< reading or decoding, in the order of joining
  std::vector<size_t> drawing_;  ///< of them, those whose last id's hidden state lies in last_
  std::vector<float> hidden_;    ///< of a forward pass
  std::vector<float> last_;      ///< [drawing, width]
  std::vector<float> logits_;    ///< [drawing, vocab_size]
  int64_t done_ = 0;
  int64_t total_ = 0;
  BatchStats stats_;
};

}  // namespace gqa
