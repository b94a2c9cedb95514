// Products of rows and blocks of a cache in tiles, by a unit that multiplies them (tiles.h).
#pragma once

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "core/kv_words.h"
#include "kernels/ahead.h"
#include "kernels/split_avx512.h"
#include "kernels/tiles.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

// Rows, that is queries and weights, are pieces of numbers behind a header with a scale: a
// SplitHeader. A row of a tile, a chunk, is 64 bytes of a piece; behind the last element there are
// zeros up to the end of a chunk. That is what split_row.h says of int8; bf16 is the same with one
// piece. What rows are multiplied by are words in whole tiles: 16 rows of them to a chunk, zeros
// behind the last, a multiple of 16 columns.

inline constexpr int64_t tile_words = tile_row_bytes / 4;  ///< in a row of a tile

template <class Unit>
struct Bf16Product {
  static constexpr int kPieces = 1;
  static constexpr int64_t kChunk = 32;  ///< elements of a chunk

  template <int C, int A, int B>
  [[gnu::always_inline]] static void add() {
    Unit::template add_bf16<C, A, B>();
  }
  /// Rounds what is not bf16 yet; the scale is for the sums, which round later and in f32.
  static void prepare(const float* x, int64_t n, float scale, std::byte* to) {
    set_split_header(to, {scale, 0, 0});
    std::byte* chunk = to + split_line;
    for (int64_t i = 0; i < n; i += kChunk, chunk += tile_row_bytes) {
      if (n - i >= kChunk) {
        Unit::round(x + i, chunk);
        continue;
      }
      float last[kChunk] = {};
      std::memcpy(last, x + i, static_cast<size_t>(n - i) * sizeof(float));
      Unit::round(last, chunk);
    }
  }
};

/// Bits are those of the products in vnni.cpp: sums are exact, and rounded in the same way.
template <class Unit>
struct Int8Product {
  static constexpr int kPieces = 2;
  static constexpr int64_t kChunk = 64;

  template <int C, int A, int B>
  [[gnu::always_inline]] static void add() {
    Unit::template add_int8<C, A, B>();
  }
  static void prepare(const float* x, int64_t n, float scale, std::byte* to) {
    split(x, n, scale, to);
  }
};

/// Chunks of n elements.
template <class P>
constexpr int64_t chunks(int64_t n) {
  return ceil_div(n, P::kChunk);
}
template <class P>
constexpr int64_t row_bytes(int64_t n) {
  return split_line + P::kPieces * chunks<P>(n) * tile_row_bytes;
}

/// Words [.][columns] in whole tiles.
struct TileWords {
  const std::byte* data;
  int64_t columns;
  const std::byte* at(int64_t chunk, int64_t column) const {
    return data + 4 * (chunk * tile_rows * columns + column);
  }
};

/// f(0), ..., f(n - 1), of numbers that the compiler knows.
template <int n, typename F>
[[gnu::always_inline]] inline void unroll(const F& f) {
  const auto all = [&]<int... i>(std::integer_sequence<int, i...>) {
    (f(std::integral_constant<int, i>()), ...);
  };
  all(std::make_integer_sequence<int, n>());
}

/// Rows and the words that they meet. A row of tiles is 16 of them.
struct TilePart {
  const std::byte* rows;  ///< the first chunk of the first one
  int64_t row_bytes;      ///< from one to the next
  int64_t piece_bytes;    ///< from a piece to the next, of a row
  TileWords words;
  AheadLines ahead;
};

/// Where sums go: rows of tiles.
struct TileTarget {
  std::byte* rows;
  int64_t row_bytes;
  int64_t piece_bytes;  ///< from the sums of a piece to those of the next
};

/// Multiplies in eight tiles: sums in the first four, one or two of rows, two of words in turns.
template <class Unit, class P>
class TileProduct {
 public:
  /// Of columns that are worked on at a time, for so many rows of tiles.
  static constexpr int64_t most_tiles(int64_t tile_rows_at_once) {
    return 4 / P::kPieces / tile_rows_at_once;
  }
  /// Two where there are more rows than one has: words are then loaded half as often.
  static constexpr int64_t most_tile_rows = P::kPieces == 1 ? 2 : 1;

  /// Sums over parts of rows [.][n], of which there are as many as Shaped::by() was told, times
  /// `tiles` of columns from `column` on, at most most_tiles().
  static void multiply(std::span<TilePart> parts, int64_t n, int64_t rows, int64_t column,
                       int64_t tiles, const TileTarget& to) {
    if constexpr (most_tile_rows == 2) {
      if (rows > tile_rows) return up_to<2, most_tiles(2)>(parts, n, column, tiles, to);
    }
    up_to<1, most_tiles(1)>(parts, n, column, tiles, to);
  }

 private:
  template <int T, int V>
  static void up_to(std::span<TilePart> parts, int64_t n, int64_t column, int64_t tiles,
                    const TileTarget& to) {
    if constexpr (V > 1) {
      if (tiles < V) return up_to<T, V - 1>(parts, n, column, tiles, to);
    }
    multiply_tiles<T, V>(parts, n, column, to);
  }

  /// T rows of tiles, V columns of them.
  template <int T, int V>
  static void multiply_tiles(std::span<TilePart> parts, int64_t n, int64_t column,
                             const TileTarget& to) {
    // Sums of one row of tiles, or piece, begin at a tile of their own: shapes depend on it.
    constexpr int step_sums = static_cast<int>(most_tiles(T));
    unroll<P::kPieces * T>([](auto i) {
      unroll<V>([](auto j) { Unit::template zero<decltype(i)::value * step_sums + j.value>(); });
    });
    for (TilePart& part : parts) {
      AheadLines ahead = part.ahead;
      const int64_t words_row = 4 * part.words.columns;
      for (int64_t chunk = 0; chunk < chunks<P>(n); ++chunk) {
        const std::byte* a = part.rows + chunk * tile_row_bytes;
        // Pieces of one row of tiles, or one piece of two.
        const int64_t step = P::kPieces > 1 ? part.piece_bytes : tile_rows * part.row_bytes;
        unroll<P::kPieces * T>(
            [&](auto i) { Unit::template load<4 + i.value>(a + i.value * step, part.row_bytes); });
        const std::byte* b = part.words.at(chunk, column);
        unroll<V>([&](auto j) {
          constexpr int sums = decltype(j)::value, tile = 6 + sums % 2;
          ahead.step();
          Unit::template load<tile>(b + j * tile_row_bytes, words_row);
          unroll<P::kPieces * T>(
              [](auto i) { P::template add<i.value * step_sums + sums, 4 + i.value, tile>(); });
        });
      }
      part.ahead = ahead;
    }
    const int64_t step = P::kPieces > 1 ? to.piece_bytes : tile_rows * to.row_bytes;
    unroll<P::kPieces * T>([&](auto i) {
      unroll<V>([&](auto j) {
        Unit::template store<decltype(i)::value * step_sums + j.value>(
            to.rows + i * step + j * tile_row_bytes, to.row_bytes);
      });
    });
  }
};

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
