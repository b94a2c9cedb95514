#include "kernels/amx.h"

#if defined(__x86_64__)

#include "kernels/emulated_tiles.h"
#include "kernels/hardware_tiles.h"
#include "kernels/tile_products.h"
#include "kernels/tile_words.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,fma")
namespace gqa::kernels {
namespace {

const Table* avx512 = nullptr;

/// The primitives of a unit of tiles.
template <class Unit>
class Tiled {
 public:
  static Table table(std::string_view isa) {
    Table changed = *avx512;
    changed.isa = isa;
    changed.edge_rows = tile_rows;
    changed.takes_stored = has_tiles;
    changed.arrange = words_in_tiles;
    changed.query_bytes = query_bytes;
    changed.prepare_query = prepare_query;
    changed.score = score;
    changed.accumulate = accumulate;
    changed.end_run = end_run;
    return changed;
  }

 private:
  using Bf16 = Bf16Product<Unit>;
  using Int8 = Int8Product<Unit>;

  static int64_t query_bytes(KvDType t, int64_t head_dim) {
    if (!has_tiles(t)) return avx512->query_bytes(t, head_dim);
    return is_quantised(t) ? row_bytes<Int8>(head_dim) : row_bytes<Bf16>(head_dim);
  }

  static void prepare_query(KvDType t, const float* q, int64_t head_dim, float scale,
                            void* prepared) {
    if (!has_tiles(t)) return avx512->prepare_query(t, q, head_dim, scale, prepared);
    auto* row = static_cast<std::byte*>(prepared);
    if (is_quantised(t)) return Int8::prepare(q, head_dim, scale, row);
    Bf16::prepare(q, head_dim, scale, row);
  }

  static void score(const void* queries, int64_t rows, int64_t head_dim, KvDType t, const void* k,
                    Range keys, float* scores, Ahead next) {
    if (!has_tiles(t)) return avx512->score(queries, rows, head_dim, t, k, keys, scores, next);
    const auto* q = static_cast<const std::byte*>(queries);
    const TileWords words{static_cast<const std::byte*>(k), key_block};
    if (is_quantised(t)) return score_by<Int8>(q, rows, head_dim, words, keys, scores, next);
    score_by<Bf16>(q, rows, head_dim, words, keys, scores, next);
  }

  static void accumulate(const float* weights, const uint64_t* visible, int64_t rows, KvDType t,
                         const void* v, int64_t v_head_dim, Range keys, float* acc, int64_t acc_row,
                         Ahead next) {
    if (!has_tiles(t)) {
      return avx512->accumulate(weights, visible, rows, t, v, v_head_dim, keys, acc, acc_row, next);
    }
    const TileWords words{static_cast<const std::byte*>(v), round_up(v_head_dim, tile_words)};
    if (is_quantised(t)) {
      return accumulate_by<Int8>(weights, visible, rows, words, acc, acc_row, next);
    }
    accumulate_by<Bf16>(weights, visible, rows, words, acc, acc_row, next);
  }

  static void end_run() {
    if (shaped_rows_ != 0) Unit::release();
    shaped_rows_ = 0;
  }

  /// Shapes the tiles of sums and of rows for the next up to 16 of `rows` rows, if they are not: it
  /// takes as long as several products. Returns how many.
  static int64_t shape_tiles(int64_t rows) {
    const int64_t n = std::min(rows, tile_rows);
    if (n == shaped_rows_) return n;
    TileShapes shapes;
    for (int t = 0; t < 8; ++t) {
      shapes.row_bytes[t] = tile_row_bytes;
      shapes.rows[t] = static_cast<uint8_t>(t < 6 ? n : tile_rows);
    }
    Unit::configure(shapes);
    shaped_rows_ = n;
    return n;
  }

  template <class P>
  static void score_by(const std::byte* queries, int64_t rows, int64_t head_dim,
                       const TileWords& words, Range keys, float* scores, Ahead next) {
    TileSums<Unit, P> sums;
    const int64_t begin = keys.begin / tile_words;
    const int64_t end = ceil_div(keys.end, tile_words);
    AheadLines ahead(next, ceil_div(rows, tile_rows) * (end - begin) * chunks<P>(head_dim));
    for (int64_t row = 0; row < rows; row += tile_rows) {
      const int64_t n = shape_tiles(rows - row);
      const std::byte* q = queries + row * row_bytes<P>(head_dim);
      for (int64_t tile = begin; tile < end; tile += sums.kMost) {
        const int64_t tiles = std::min<int64_t>(sums.kMost, end - tile);
        sums.multiply(q, head_dim, words, tile * tile_words, tiles, ahead);
        for (int64_t r = 0; r < n; ++r) {
          const float scale = split_header(q + r * row_bytes<P>(head_dim)).scale;
          float* to = scores + (row + r) * key_block + tile * tile_words;
          for (int64_t j = 0; j < tiles; ++j) {
            _mm512_storeu_ps(to + j * tile_words, sums.at(r, j, scale));
          }
        }
      }
    }
  }

  /// All keys of a block count, those with weight 0, too: it makes no difference how many rows see
  /// which of them. Sums start from 0 and are added in f32 to what rows have, whose subnormal
  /// numbers no tile would keep; a row that sees nothing keeps all its bits.
  template <class P>
  static void accumulate_by(const float* weights, const uint64_t* visible, int64_t rows,
                            const TileWords& words, float* acc, int64_t acc_row, Ahead next) {
    alignas(64) std::byte prepared[tile_rows * row_bytes<P>(key_block)];
    alignas(64) int32_t finite[key_block / 2 * 4 * tile_words];
    TileSums<Unit, P> sums;
    const int64_t end = words.columns / tile_words;
    AheadLines ahead(next, ceil_div(rows, tile_rows) * end * chunks<P>(key_block));
    for (int64_t row = 0; row < rows; row += tile_rows) {
      const int64_t n = shape_tiles(rows - row);
      const float* w = weights + row * key_block;
      for (int64_t r = 0; r < n; ++r) {
        P::prepare(w + r * key_block, key_block, 1.0f, prepared + r * row_bytes<P>(key_block));
      }
      float* to = acc + row * acc_row;
      for (int64_t tile = 0; tile < end; tile += sums.kMost) {
        const int64_t tiles = std::min<int64_t>(sums.kMost, end - tile);
        const int64_t column = tile * tile_words;
        sums.multiply(prepared, key_block, words, column, tiles, ahead);
        bool all_finite = true;
        if constexpr (std::is_same_v<P, Bf16>) {
          // One value that is not finite makes the sums of all rows so, whatever their weights: it
          // shows in the first.
          for (int64_t j = 0; j < tiles; ++j) all_finite &= is_finite(sums.at(0, j, 1.0f));
          if (!all_finite) {
            copy_finite(words, key_block / 2, column, tiles, finite);
            const TileWords clean{reinterpret_cast<const std::byte*>(finite), tiles * tile_words};
            sums.multiply(prepared, key_block, clean, 0, tiles, ahead);
          }
        }
        for (int64_t r = 0; r < n; ++r) {
          if (visible[row + r] == 0) continue;
          const float scale = split_header(prepared + r * row_bytes<P>(key_block)).scale;
          float* c = to + r * acc_row + column;
          for (int64_t j = 0; j < tiles; ++j, c += tile_words) {
            _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), sums.at(r, j, scale)));
          }
        }
        if (!all_finite) {
          add_not_finite(w, visible + row, n, words, column, column + tiles * tile_words, to,
                         acc_row);
        }
      }
    }
  }

  static bool is_finite(__m512 x) {
    constexpr int nan_or_infinite = 0x99;
    return _mm512_fpclass_ps_mask(x, nan_or_infinite) == 0;
  }

  static inline thread_local int64_t shaped_rows_ = 0;  ///< 0: the tiles have no shapes
};

}  // namespace

const Table* amx_table(const Table& base) {
  if (!HardwareTiles::available()) return nullptr;
  avx512 = &base;
  static const Table table = Tiled<HardwareTiles>::table("avx512_amx");
  return &table;
}

const Table* emulated_amx_table(const Table& base) {
  avx512 = &base;
  static const Table table = Tiled<EmulatedTiles>::table("amx_emulated");
  return &table;
}

}  // namespace gqa::kernels
HWY_POP_ATTRIBUTES

#endif
