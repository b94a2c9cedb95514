// How fast attention and models run, beside the ceilings of the machine measured in the same run.
#pragma once

#include <cstdint>
#include <optional>

#include "gqa/approx.h"
#include "gqa/attention_spec.h"
#include "gqa/context.h"
#include "gqa/dtype.h"
#include "gqa/model.h"
#include "gqa/progress.h"

namespace gqa {
#pragma GCC visibility push(default)

struct BenchOptions {
  /// How often calls are timed, in turns with what they are compared with, after a first turn that
  /// warms up. 0: attention for about two seconds, at least 5 times and at most 100; a model 3
  /// times.
  int repeats = 0;
  /// Calls of attention go round caches that together take more bytes than this: give twice what
  /// the last-level caches hold, so that none is found there.
  int64_t rotate_bytes = int64_t{1} << 30;
  /// Keys, values, queries and outputs take at most this, though fewer caches rotate then.
  int64_t memory_bytes = INT64_MAX;
  /// Rows and columns of the matrices whose product (GEMM) is the ceiling of arithmetic; at least
  /// one row for each thread. Smaller ones take less time, but reach less than the machine can.
  int64_t gemm_size = 2048;
};

/// Of one call, in milliseconds, over all repetitions.
struct BenchTimes {
  double median = 0;
  double min = 0;
  double max = 0;
};

/// A rate, at the median time, and the machine's: the median of what the same threads reach.
struct BenchRate {
  double value = 0;
  double ceiling = 0;
  double fraction() const { return value / ceiling; }
};

/// One call of attend() with one sequence, causal: the queries are its last q_len tokens and have
/// the cache's dtype (f32 for int8 and int4), as has the output. Keys, values and queries are
/// random; where attention is not exact, they drift from token to token, as those of a model do.
struct AttentionBench {
  int64_t q_heads = 32;
  int64_t kv_heads = 8;
  int64_t head_dim = 128;
  int64_t v_head_dim = 128;
  int64_t kv_len = 32768;  ///< tokens of the cache, those of the queries among them
  int64_t q_len = 1;
  KvDType kv_dtype = KvDType::f16;
  int64_t window = 0;    ///< Mask::window
  float softcap = 0.0f;  ///< AttendOptions::softcap
  bool sinks = false;    ///< AttendOptions::sinks: a logit for each query head
  /// Only exact attention goes with softcap and sinks.
  AttentionSpec attention = ExactAttention{};
};

/// An approximation beside exact attention to the same keys.
struct ApproxBenchResult {
  BenchTimes exact_ms;  ///< of attend(), in turns with the approximation, counted as its times are
  double speedup = 0;   ///< exact over approximation, of the median times
  ApproxShares shares;
  double output_error = 0;  ///< L2 norm of the outputs' difference over that of the exact output
};

struct AttentionBenchResult {
  BenchTimes ms;
  /// Bytes of the keys and values that at least one query sees, each counted once. For an
  /// approximation that is no mask: all that a call reads, counted anew for each query token and KV
  /// head, summaries included.
  int64_t kv_bytes = 0;
  BenchRate gb_per_s;  ///< kv_bytes, 10^9 a second; ceiling: reading the pages of such caches
  /// Useful operations, 2 * (head_dim + v_head_dim) for each query head and each key that it sees,
  /// 10^9 a second; ceiling: oneDNN's GEMM of BenchOptions::gemm_size, of type `gemm`.
  BenchRate gflop_per_s;
  DType gemm = DType::f32;  ///< bf16 where a bf16 cache is multiplied in tiles (AMX)
  /// What the threads reach by multiplying and adding f32 in registers alone, 10^9 operations a
  /// second: above any SGEMM.
  double peak_gflop_per_s = 0;
  /// CPU time of the process over wall time and threads, during the calls: below 1 where other
  /// programs took the cores, or where there is too little work for so many threads.
  double cpu_fraction = 0;
  int repeats = 0;
  int64_t caches = 0;                                   ///< that took turns
  int64_t rotated_bytes = 0;                            ///< of all of them
  std::optional<ApproxBenchResult> approximation = {};  ///< where attention is not exact
};

/// Times attend() and, in turns with it, the ceilings. Give a Context with pinned threads. Throws
/// Error: usage for sizes below 1, q_heads that are no multiple of kv_heads, a q_len above kv_len,
/// a window or soft cap below 0; resources where memory_bytes do not hold one cache. Progress is
/// called between calls ("fill", "measure").
///
/// Where attention is not exact, it is timed beside exact attention to caches of the same rotation.
/// One query token is timed as in decoding: summaries of what is cached are there, and the call's
/// own token is appended before it, untimed. A time is then the mean over the calls of a turn, each
/// with a sequence at another position: 64 consecutive ones (a page), 128 (a segment) where queries
/// are grouped, B where blocks of B > 64 are summed up, all up to kv_len. So each summary, and each
/// new group, counts once. Several query tokens: their keys are appended anew before each call, so
/// that whatever is worked out from them counts in it. Masks (block, window) keep nothing: each
/// call is a time of its own, at kv_len.
AttentionBenchResult bench_attention(Context& context, const AttentionBench& bench,
                                     const BenchOptions& options = {},
                                     const Progress& progress = {});

/// Two configurations in one run.
struct BesideBenchResult {
  AttentionBenchResult one, other;
  /// How many times as long the other takes: the median of the quotients of calls that were timed
  /// one right after the other. What other programs do, or a clock that changes, then falls on
  /// both.
  double times = 0;
};

/// Times exact attention in two configurations, call by call in turns, each beside the ceilings and
/// with at most half of memory_bytes. Throws Error as bench_attention() does, and (usage) where
/// attention is not exact.
BesideBenchResult bench_beside(Context& context, const AttentionBench& bench,
                               const AttentionBench& other, const BenchOptions& options = {},
                               const Progress& progress = {});

/// One call of attend_backward() with one sequence, causal: the queries are its last q_len tokens.
/// Queries, keys, values, outputs and all gradients are dense arrays of one type, of random
/// numbers.
struct BackwardBench {
  int64_t q_heads = 32;
  int64_t kv_heads = 8;
  int64_t head_dim = 128;
  int64_t v_head_dim = 128;
  int64_t kv_len = 2048;  ///< tokens, those of the queries among them
  int64_t q_len = 2048;
  DType dtype = DType::f32;
  int64_t window = 0;    ///< Mask::window
  float softcap = 0.0f;  ///< AttendOptions::softcap
  bool sinks = false;    ///< AttendOptions::sinks, and their gradients
};

struct BackwardBenchResult {
  BenchTimes ms;
  BenchTimes forward_ms;  ///< of attend() on the same arrays, in turns with it
  /// Useful operations, 2 * (3 * head_dim + 2 * v_head_dim) for each query head and each key that
  /// it sees, 10^9 a second; ceiling: as of attention.
  BenchRate gflop_per_s;
  DType gemm = DType::f32;      ///< bf16 where arrays of bf16 are multiplied in tiles (AMX)
  double peak_gflop_per_s = 0;  ///< as of attention
  double cpu_fraction = 0;      ///< of attend_backward(), as of attention
  int repeats = 0;
};

/// Times attend_backward() and, in turns with it, attend() and the ceiling. Give a Context with
/// pinned threads. Throws Error as bench_attention() does.
BackwardBenchResult bench_backward(Context& context, const BackwardBench& bench,
                                   const BenchOptions& options = {}, const Progress& progress = {});

/// `batch` sequences that read a prompt each, of random tokens, and then decode together, greedily.
struct ModelBench {
  std::optional<int64_t> prompt_tokens = {};  ///< none: 512, or what the context holds
  int64_t new_tokens = 64;                    ///< of each sequence
  int64_t batch = 1;
  std::optional<KvDType> kv_dtype = {};  ///< none: Model::default_kv_dtype()
};

struct ModelBenchResult {
  int64_t prompt_tokens = 0;
  KvDType kv_dtype = KvDType::f32;
  BenchTimes prefill_ms;  ///< of reading all prompts, 512 tokens a forward pass
  BenchTimes ms;          ///< of a decoding step: forward pass, logits and sampling of a token each
  double prefill_tokens_per_s = 0;  ///< of all sequences, at the median time
  double decode_tokens_per_s = 0;   ///< of all sequences, at the median time
  int64_t weight_bytes = 0;         ///< that a step reads
  int64_t kv_bytes = 0;             ///< that a step reads, of all sequences; mean over the steps
  BenchRate gb_per_s;  ///< of a step, both; ceiling: reading the same memory over and over
  /// Of reading the prompts, multiply-adds of weights and visible keys; ceiling: as of attention.
  BenchRate gflop_per_s;
  double cpu_fraction = 0;  ///< as of attention
  int repeats = 0;
};

/// Times the model's forward passes and, in turns with them, the ceilings. Throws Error: usage for
/// numbers below 1 or more tokens than the model's context; resources.
ModelBenchResult bench_model(Context& context, const Model& model, const ModelBench& bench = {},
                             const BenchOptions& options = {}, const Progress& progress = {});

#pragma GCC visibility pop
}  // namespace gqa
