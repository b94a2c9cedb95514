// Keys and values of a chunk as products of bf16 take them, and the gradients that these give.
#pragma once

#include <array>
#include <cstdint>

#include "attention/backward_keys.h"
#include "attention/backward_pairs.h"

namespace gqa {

/// Memory for a chunk of `keys` keys, a multiple of key_block.
struct PairedKeys {
  uint32_t* k_by_dim;  ///< of each block, [pair_stride(head_dim) / 2][key_block]
  uint32_t* v_by_dim;  ///< of each block, [pair_stride(v_head_dim) / 2][key_block]
  uint32_t* k_by_key;  ///< of each block, [key_block / 2][row_stride(head_dim)]
  float* dk;           ///< of each block, [row_stride(head_dim)][key_block], over the scale
  float* dv;           ///< of each block, [row_stride(v_head_dim)][key_block]
  float* two_rows;     ///< [2][row_stride(dim)]
  uint16_t* rows;      ///< [key_block][pair_stride(dim)]: on their way to words by dimension
  float* sums;         ///< [key_block][row_stride(dim)]: of a block, as rows
};

class PairedChunk {
 public:
  PairedChunk(const kernels::Table& kernels, const ChunkKeys& keys, const ItemShape& shape,
              const PairedKeys& memory);

  /// Block i of the chunk. Loads it the first time; its gradients are then 0.
  PairedBlock block(int64_t i);
  /// dk [key_block][row_stride(head_dim)], dv likewise += what was found for block i, if anything
  /// was.
  void add_to(int64_t i, float scale, float* dk, float* dv) const;

 private:
  PairedBlock at(int64_t i) const;
  void load(int64_t i);
  bool load_by_dim(const AnyView<4>& x, int64_t i, uint32_t* by_dim, uint32_t* by_key) const;
  void add_rows(const float* columns, int64_t stride, float scale, float* to) const;

  const kernels::Table& kernels_;
  const ChunkKeys& keys_;
  int64_t k_row_, v_row_;        ///< elements of rows of bf16
  int64_t k_stride_, v_stride_;  ///< of rows of f32
  PairedKeys memory_;
  std::array<bool, chunk_blocks> loaded_{}, finite_{};
};

}  // namespace gqa
