// The backward's operands in bf16, as products of pairs take them, and what these products give.
#pragma once

#include <cstdint>

#include "attention/shape.h"

namespace gqa {

struct AttendBackwardItem;

/// All arrays that are multiplied are of bf16, and the machine has products for that.
bool takes_pairs(const kernels::Table& kernels, const AttendBackwardItem& item);

/// Elements of a bf16 row of so many, zeros behind the last among them.
constexpr int64_t pair_stride(int64_t n) { return round_up(n, kernels::pair_depth); }

/// to [pair_stride(n)] = row [row_stride(n)] as bf16, and zeros.
void round_row(const kernels::Table& kernels, const float* row, int64_t n, uint16_t* to);

/// The rows of a tile; `depth` is pair_stride(rows).
struct PairedRows {
  uint16_t* q;              ///< [rows][pair_stride(head_dim)], not scaled
  uint16_t* d_out;          ///< [rows][pair_stride(v_head_dim)]
  uint16_t* q_columns;      ///< [head_dim][depth]
  uint16_t* d_out_columns;  ///< [v_head_dim][depth]
  uint16_t* ds;             ///< [rows][key_block]
  uint32_t* weight_words;   ///< [depth / 2][key_block]
  uint32_t* ds_words;       ///< [depth / 2][key_block]
  uint32_t* words;          ///< [depth / 2][row_stride(dim)]: rows on their way to columns
};

/// Where a product of bf16 finds the keys of a block, and leaves their gradients.
struct PairedBlock {
  uint32_t* k_by_dim;
  uint32_t* v_by_dim;
  uint32_t* k_by_key;
  float* dk;
  float* dv;
  bool finite;  ///< otherwise nothing of it is to be used
};

/// The products of some rows of a tile.
class PairedTile {
 public:
  PairedTile(const kernels::Table& kernels, const ItemShape& shape, int64_t rows,
             const PairedRows& memory);

  /// Queries [rows][row_stride(head_dim)], not scaled, and gradients of outputs likewise.
  void load(const float* q, const float* d_out) const;
  /// scores, dp [rows][key_block].
  void score(const PairedBlock& keys, float scale, float* scores, float* dp) const;
  /// What weights and gradients of scores [rows][key_block] give.
  void add_to_values(const float* weights, const PairedBlock& keys) const;
  void add_to_keys(const float* ds, const PairedBlock& keys) const;
  /// dq [rows][row_stride(head_dim)], over the scale.
  void add_to_queries(const float* ds, const PairedBlock& keys, float* dq) const;

 private:
  void load_rows(const float* from, int64_t dim, uint16_t* rows, uint16_t* columns) const;
  void add_over_rows(const uint16_t* columns, int64_t dim, const uint32_t* words,
                     float* sums) const;

  const kernels::Table& kernels_;
  int64_t head_dim_, v_head_dim_;
  int64_t rows_, depth_;
  const PairedRows& m_;
};

}  // namespace gqa
