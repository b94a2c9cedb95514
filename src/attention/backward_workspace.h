// The memory that one thread of the backward works in.
#pragma once

#include "attention/backward_chunk.h"
#include "attention/backward_plan.h"
#include "attention/workspace.h"

namespace gqa {

/// All sizes are those of the largest tile and chunk. Rows lie row_stride() apart, with zeros
/// behind the head size.
struct BackwardWorkspace : ScoreBlock {
  ChunkMemory chunk;
  PairedRows paired;    ///< where there are products of bf16
  float* q;             ///< [rows]: queries, scaled
  float* finite_q;      ///< [rows]: for the same with 0 for rows that are not finite
  float* d_out;         ///< [rows]
  float* finite_d_out;  ///< [rows]
  float* dq;            ///< [rows]: of a chunk, over the scale
  float* ds;            ///< [rows][key_block]: gradients of weights, then of scores
  float* capped;        ///< [rows][key_block]

  static int64_t floats(const BackwardSize& s) { return lay_out(nullptr, s, nullptr); }
  BackwardWorkspace(float* memory, const BackwardSize& s) { lay_out(memory, s, this); }

 private:
  static int64_t lay_out(float* memory, const BackwardSize& s, BackwardWorkspace* w) {
    int64_t used = 0;
    const auto take = [&](int64_t n) {
      float* p = memory ? memory + used : nullptr;
      used += round_up(n, kernels::row_padding);
      return p;
    };
    const int64_t k_row = row_stride(s.max_head_dim);
    const int64_t v_row = row_stride(s.max_v_head_dim);
    const auto put = [&](float* BackwardWorkspace::*member, int64_t n) {
      float* p = take(n);
      if (w) w->*member = p;
    };
    ChunkMemory chunk{take(s.max_keys * k_row),
                      take(s.max_keys * k_row),
                      take(s.max_keys * v_row),
                      take(s.max_keys * k_row),
                      take(s.max_keys * v_row),
                      take(transpose_rows * v_row),
                      {}};
    if (s.pairs) lay_out_pairs(s, take, chunk.paired, w ? &w->paired : nullptr);
    if (w) w->chunk = chunk;
    put(&BackwardWorkspace::q, s.max_rows * k_row);
    put(&BackwardWorkspace::finite_q, s.max_rows * k_row);
    put(&BackwardWorkspace::d_out, s.max_rows * v_row);
    put(&BackwardWorkspace::finite_d_out, s.max_rows * v_row);
    put(&BackwardWorkspace::dq, s.max_rows * k_row);
    put(&BackwardWorkspace::scores, s.max_rows * kernels::key_block);
    put(&BackwardWorkspace::bias, s.max_rows * kernels::key_block);
    put(&BackwardWorkspace::ds, s.max_rows * kernels::key_block);
    put(&BackwardWorkspace::capped, s.max_rows * kernels::key_block);
    float* const visible = take(2 * s.max_rows);
    if (w) w->row = kernels::key_block;
    if (w) w->visible = reinterpret_cast<uint64_t*>(visible);
    return used;
  }

  /// Words take as much as floats, numbers of bf16 half of it.
  template <typename Take>
  static void lay_out_pairs(const BackwardSize& s, const Take& take, PairedKeys& keys,
                            PairedRows* rows) {
    const int64_t k_pairs = pair_stride(s.max_head_dim) / 2;
    const int64_t v_pairs = pair_stride(s.max_v_head_dim) / 2;
    const int64_t k_row = row_stride(s.max_head_dim);
    const int64_t v_row = row_stride(s.max_v_head_dim);
    const int64_t row = std::max(k_row, v_row);
    const int64_t pairs = pair_stride(s.max_rows) / 2;
    const auto words = [&](int64_t n) { return reinterpret_cast<uint32_t*>(take(n)); };
    const auto halves = [&](int64_t n) { return reinterpret_cast<uint16_t*>(take(n)); };
    keys = {words(s.max_keys * k_pairs),
            words(s.max_keys * v_pairs),
            words(s.max_keys / 2 * k_row),
            take(s.max_keys * k_row),
            take(s.max_keys * v_row),
            take(2 * row),
            halves(kernels::key_block * std::max(k_pairs, v_pairs)),
            take(kernels::key_block * row)};
    const PairedRows all{halves(s.max_rows * k_pairs),
                         halves(s.max_rows * v_pairs),
                         halves(k_row * pairs),
                         halves(v_row * pairs),
                         halves(s.max_rows * kernels::key_block / 2),
                         words(pairs * kernels::key_block),
                         words(pairs * kernels::key_block),
                         words(pairs * row)};
    if (rows) *rows = all;
  }
};

}  // namespace gqa
