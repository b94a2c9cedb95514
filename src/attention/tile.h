// One group's query rows of one item, worked through chunk by chunk.
#pragma once

#include <cstdint>
#include <span>

#include "attention/parts_ahead.h"
#include "attention/run.h"
#include "attention/visible.h"
#include "attention/workspace.h"

namespace gqa {

/// Query tokens [t_begin, t_end) of an item, all heads of KV head `kv_head`. Row r is token t_begin
/// + r / heads, head r % heads of the group.
class Tile {
 public:
  Tile(const kernels::Table& kernels, const AttendItem& item, const ItemShape& shape,
       const AttendOptions& options, int32_t kv_head, int64_t t_begin, int64_t t_end);

  int64_t rows() const { return rows_; }
  /// Floats from one row's accumulator to the next.
  int64_t stride() const { return stride_; }
  /// Floats of its partial results.
  int64_t partial_floats() const { return partial_size(rows(), shape_.v_head_dim); }
  /// Some row may see a key of the chunk.
  bool sees(int64_t chunk) const {
    return keys_.touch(chunk * chunk_blocks, (chunk + 1) * chunk_blocks);
  }

  /// Queries times the scale, as the kernels want them for this cache.
  void load_queries(const Workspace& w) const;
  /// Works through the keys of one chunk from a fresh state.
  void attend_chunk(int64_t chunk, const Workspace& w, const Rows& out) const;
  /// total = total merged with a later chunk's result.
  void merge(const Rows& total, const Rows& later) const;
  /// Divides by the sums and writes outputs and LSE.
  void finish(const Rows& total) const;

  int64_t token(int64_t row) const { return t_begin_ + row / heads_; }
  int64_t head(int64_t row) const { return first_head_ + row % heads_; }
  const TileKeys& keys() const { return keys_; }
  /// What queries are multiplied by.
  float scale() const;

  /// A block of keys, as the rows see it.
  struct SeenBlock {
    KvBlock kv;
    kernels::Range keys;  ///< all that any row sees
    bool alike;           ///< every row sees all of them
    bool any() const { return keys.end != 0; }
  };
  /// Fills in which keys of the block each row sees, and the bias of those.
  SeenBlock look(int64_t block, const ScoreBlock& w) const;
  /// From scale * q k to scores: all that a score means besides. First the soft cap, if there is
  /// one, then what is added.
  void cap_scores(const ScoreBlock& w) const;
  void add_to_scores(int64_t block, const ScoreBlock& w) const;

 private:
  float softmax_scale() const { return scales_late_ ? scale() : 1.0f; }
  const std::byte* query(const Workspace& w, int64_t row) const {
    return w.queries + row * query_bytes_;
  }
  void attend_block(int64_t block, const Workspace& w, const Rows& out) const;
  void attend_stretch(int64_t first, const Workspace& w, const Rows& out) const;
  void score_block(const SeenBlock& b, const ScoreBlock& scores, const Workspace& w,
                   const kernels::Ahead& ahead) const;
  void accumulate_block(const SeenBlock& b, const ScoreBlock& weights, const Workspace& w,
                        const Rows& out, const kernels::Ahead& ahead) const;
  void accumulate_stored(std::span<const SeenBlock> seen, const Workspace& w, const Rows& out,
                         PartsAhead& ahead, int64_t share) const;
  Operand stored_values(const SeenBlock& b, const ScoreBlock& weights, float* scratch) const;
  void load_bias(int64_t row, int64_t block, float* out) const;
  template <typename Body>
  void for_alike(const SeenBlock& b, const ScoreBlock& w, const kernels::Ahead& ahead,
                 const Body& body) const;
  bool finite(const Operand& v, kernels::Range keys) const;
  void accumulate_one_by_one(kernels::Range keys, const Operand& v, const ScoreBlock& w,
                             const Rows& out) const;
  float normaliser(const kernels::RowState& state, int64_t head) const;
  void write(int64_t row, const float* values) const;

  const kernels::Table& kernels_;
  const AttendItem& item_;
  const ItemShape& shape_;
  const AttendOptions& options_;
  int64_t t_begin_, t_end_;
  int32_t kv_head_;
  int64_t first_head_, heads_;
  int64_t rows_, stride_;
  int64_t query_bytes_;
  int64_t stretch_;  ///< blocks
  bool few_, takes_stored_;
  bool changes_scores_;  ///< something is done to them between product and softmax
  bool scales_late_;     ///< softmax scales them
  TileKeys keys_;
  KvBlocks kv_;
};

}  // namespace gqa
