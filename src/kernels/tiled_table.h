// A table of kernels whose products are made in tiles, by a unit of the processor or in software.
#pragma once

#if defined(__x86_64__)

#include "kernels/kernels.h"
#include "kernels/tile_attention.h"
#include "kernels/tile_gradient.h"
#include "kernels/tile_softmax.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

/// Up to so many rows of int4 are multiplied by vectors, which give the same bits: for tiles it
/// would have to become int8 first. (int8 itself takes 1.3 times as long there, one thread and 4
/// rows.)
inline constexpr int64_t most_vector_rows = 8;

/// The primitives of a unit of tiles, for caches of types that have tiles.
template <class Unit>
class Tiled {
 public:
  /// `base`, named `isa`, with products in tiles. `base` multiplies integers of a few rows, and all
  /// that has no tiles; it must last.
  static Table table(const Table& base, std::string_view isa) {
    vectors = &base;
    Table changed = base;
    changed.isa = isa;
    changed.edge_rows = tile_rows;
    changed.takes_stored = has_tiles;
    changed.arrange = arrange;
    changed.query_bytes = query_bytes;
    changed.prepare_query = prepare_query;
    changed.score = score;
    // Processors with tiles take 0.88 of the time for f32, 0.94 for f16; others as long or longer.
    changed.second_level = true;
    changed.stretch = stretch;
    changed.scales_late = is_bf16;
    changed.softmax = softmax;
    changed.accumulate = accumulate;
    changed.end_run = Shaped<Unit>::end;
    changed.multiply_pairs = multiply_pairs<Unit>;
    return changed;
  }

 private:
  static inline const Table* vectors = nullptr;

  using Bf16 = Bf16Product<Unit>;
  using Int8 = Int8Product<Unit>;

  /// Sums of a stretch stay in tiles.
  static int64_t stretch(KvDType t) { return has_tiles(t) ? stretch_blocks : 1; }

  static bool is_bf16(KvDType t) { return t == KvDType::bf16; }

  static bool by_vectors(KvDType t, int64_t rows) {
    if (!has_tiles(t)) return true;
    return t == KvDType::int4 && vectors->takes_stored(t) && rows <= most_vector_rows;
  }

  static BlockWords arrange(KvDType t, const void* words, const WordOrder& order, int64_t depth,
                            int64_t columns, int64_t rows, void* scratch) {
    if (by_vectors(t, rows)) return {words, t, order};
    return {words_in_tiles(t, words, order, depth, columns, scratch),
            t == KvDType::int4 ? KvDType::int8 : t, WordOrder::rows(round_up(columns, tile_words))};
  }

  static int64_t query_bytes(KvDType t, int64_t head_dim) {
    if (!has_tiles(t)) return vectors->query_bytes(t, head_dim);
    return is_quantised(t) ? row_bytes<Int8>(head_dim) : row_bytes<Bf16>(head_dim);
  }

  static void prepare_query(KvDType t, const float* q, int64_t head_dim, float scale,
                            void* prepared) {
    if (!has_tiles(t)) return vectors->prepare_query(t, q, head_dim, scale, prepared);
    auto* row = static_cast<std::byte*>(prepared);
    if (is_quantised(t)) return Int8::prepare(q, head_dim, scale, row);
    Bf16::prepare(q, head_dim, scale, row);
  }

  static void score(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k,
                    Range keys, float* scores, int64_t scores_row, const Ahead& next) {
    // Keys are of int4 still only where vectors are to multiply them, however many rows see them.
    if (k.type == KvDType::int4 || !has_tiles(k.type)) {
      return vectors->score(queries, rows, head_dim, k, keys, scores, scores_row, next);
    }
    const auto* q = static_cast<const std::byte*>(queries);
    const TileWords words{static_cast<const std::byte*>(k.words), key_block};
    if (is_quantised(k.type)) {
      return score_integers<Unit>(q, rows, head_dim, words, keys, scores, scores_row, next);
    }
    score_bf16<Unit>(q, rows, head_dim, words, keys, scores, scores_row, next);
  }

  static void softmax(KvDType t, float* scores, int64_t scores_row, const uint64_t* visible,
                      int64_t blocks, int64_t rows, float scale, RowState* states, float* acc,
                      int64_t v_stride, const Ahead& next) {
    const auto body = is_bf16(t) ? to_bf16 : vectors->softmax;
    body(t, scores, scores_row, visible, blocks, rows, scale, states, acc, v_stride, next);
  }
  static void to_bf16(KvDType, float* scores, int64_t scores_row, const uint64_t* visible,
                      int64_t blocks, int64_t rows, float scale, RowState* states, float* acc,
                      int64_t v_stride, const Ahead& next) {
    softmax_to_bf16<Unit>(scores, scores_row, visible, blocks, rows, scale, states, acc, v_stride,
                          next);
  }

  static void accumulate(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim,
                         float* acc, int64_t acc_row) {
    const KvDType t = blocks[0].v->type;
    if (by_vectors(t, rows)) return vectors->accumulate(blocks, rows, v_head_dim, acc, acc_row);
    if (is_quantised(t)) {
      return accumulate_integers<Unit>(blocks, rows, v_head_dim, acc, acc_row);
    }
    accumulate_bf16<Unit>(blocks, rows, v_head_dim, acc, acc_row);
  }
};

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
