// One group's query rows of one item, and what they give to the gradients of a chunk's keys.
#pragma once

#include <cstdint>

#include "attention/backward_bias.h"
#include "attention/backward_queries.h"
#include "attention/backward_rows.h"
#include "attention/backward_workspace.h"
#include "attention/tile.h"

namespace gqa {

/// Tile `tile` of a head. Rows as in Tile.
class BackwardTile {
 public:
  BackwardTile(const kernels::Table& kernels, const BackwardJob& job, const BackwardHead& head,
               int64_t tile, const RowTerms& terms);

  bool sees(int64_t chunk) const { return tile_.sees(chunk); }
  /// The chunk that some row sees next before or after `chunk`; -1: none.
  int64_t seen_before(int64_t chunk) const;
  int64_t seen_after(int64_t chunk) const;

  /// Queries and gradients of outputs.
  void load(const BackwardWorkspace& w);
  /// Adds what these rows give to dk and dv, and to dbias if it is not null; leaves dq of these
  /// keys in the workspace.
  void work(int64_t chunk, BackwardChunk& keys, const BiasSums* dbias,
            const BackwardWorkspace& w) const;
  /// Adds that to the sums of dq, of which it is the first or the last summand; the last one gives
  /// dq. sums: those of the head, or null if they are dq itself.
  void add_dq(bool first, bool last, float* sums, const BackwardWorkspace& w) const;
  /// dq of rows that see no key.
  void clear_dq(const BackwardWorkspace& w) const;

 private:
  /// Queries and gradients of outputs with 0 for rows that are not finite.
  struct FiniteRows {
    const float* q;
    const float* d_out;
  };

  void work_block(int64_t block, const ChunkBlock& keys, const FiniteRows& rows,
                  const BiasSums* dbias, const BackwardWorkspace& w) const;
  void work_paired(int64_t block, const PairedBlock& keys, const BiasSums* dbias,
                   const BackwardWorkspace& w) const;
  PairedTile pairs(const BackwardWorkspace& w) const;
  uint64_t look(int64_t block, const BackwardWorkspace& w) const;
  void score(const ChunkBlock& keys, bool alike, const BackwardWorkspace& w) const;
  void weigh(int64_t block, const BiasSums* dbias, const BackwardWorkspace& w) const;
  void add_to_queries(const ChunkBlock& keys, bool alike, const BackwardWorkspace& w) const;
  void add_to_keys(const float* weights, const float* rows, const float* finite_rows,
                   int64_t stride, bool alike, float* sums, const BackwardWorkspace& w) const;
  template <typename Body>
  void for_alike(bool alike, const BackwardWorkspace& w, const Body& body) const;
  const float* finite(const float* rows, int64_t stride, float* scratch) const;
  QueryGradients dq_rows() const;

  const kernels::Table& kernels_;
  const AttendBackwardItem& item_;
  const ItemShape& shape_;
  const AttendOptions& options_;
  Tile tile_;
  int64_t heads_;
  int64_t first_row_;  ///< of the head's rows
  int64_t k_stride_, v_stride_;
  float scale_;
  const float* lse_;
  const float* delta_;
  bool paired_ = false;  ///< products of bf16 take the rows as they are
};

}  // namespace gqa
