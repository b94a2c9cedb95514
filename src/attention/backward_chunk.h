// Keys and values of a chunk as the products of the backward take them, and their gradients.
#pragma once

#include <array>
#include <cstdint>

#include "attention/backward_keys.h"
#include "attention/backward_paired_chunk.h"

namespace gqa {

/// Memory for a chunk of `keys` keys, a multiple of key_block.
struct ChunkMemory {
  float* k;          ///< [keys][row_stride(head_dim)]
  float* k_columns;  ///< of each block, [head_dim][key_block]
  float* v_columns;  ///< of each block, [v_head_dim][key_block]
  float* dk;         ///< [keys][row_stride(head_dim)]
  float* dv;         ///< [keys][row_stride(v_head_dim)]
  float* rows;       ///< [transpose_rows][row_stride(v_head_dim)]
  PairedKeys paired;
};

/// One block of them.
struct ChunkBlock {
  const float* k;  ///< rows that are not finite are 0
  const float* k_columns;
  const float* v_columns;
  float* dk;
  float* dv;
  uint64_t odd_keys;  ///< that are not finite
};

class BackwardChunk {
 public:
  /// scale: what queries are multiplied by.
  BackwardChunk(const kernels::Table& kernels, const AttendBackwardItem& item,
                const ItemShape& shape, int64_t kv_head, int64_t chunk, float scale,
                const ChunkMemory& memory);

  BackwardChunk(const BackwardChunk&) = delete;
  BackwardChunk& operator=(const BackwardChunk&) = delete;

  /// Loads it the first time; its gradients are then 0.
  ChunkBlock block(int64_t block);
  /// The same for products of bf16. Gradients are the sums of both.
  PairedBlock paired_block(int64_t block) { return paired_.block(block - keys_.first_block()); }
  /// Writes dk and dv of all keys, 0 for blocks that nobody asked for.
  void write();

 private:
  void load(int64_t i);
  void clear(int64_t i);
  void write_rows(const AnyMutView<4>& to, const float* rows, int64_t stride) const;

  const kernels::Table& kernels_;
  const AttendBackwardItem& item_;
  const ItemShape& shape_;
  int64_t k_stride_, v_stride_;
  float scale_;
  ChunkMemory memory_;
  ChunkKeys keys_;
  PairedChunk paired_;
  std::array<uint64_t, chunk_blocks> odd_keys_{};
  std::array<bool, chunk_blocks> loaded_{};
};

}  // namespace gqa
