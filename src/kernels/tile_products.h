// Products of rows and blocks of a cache in tiles, by a unit that multiplies them (tiles.h).
#pragma once

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/kv_words.h"
#include "kernels/ahead.h"
#include "kernels/split_avx512.h"
#include "kernels/tiles.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,fma")
namespace gqa::kernels {

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
  /// 16 sums, times a scale.
  [[gnu::always_inline]] static __m512 sums(const std::byte* c, int64_t, float scale) {
    return _mm512_mul_ps(_mm512_loadu_ps(c), _mm512_set1_ps(scale));
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
  [[gnu::always_inline]] static __m512 sums(const std::byte* c, int64_t piece_bytes, float scale) {
    return combine(_mm512_loadu_si512(c), _mm512_loadu_si512(c + piece_bytes), scale);
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

/// Sums of up to 16 rows and up to four tiles of columns, of every piece.
template <class Unit, class P>
class TileSums {
 public:
  /// Tiles of columns that are worked on at a time: what four tiles of sums allow.
  static constexpr int kMost = 4 / P::kPieces;

  /// Sums of rows [.][n], as many as shape_tiles() was told, times `tiles` of columns from `column`
  /// on, at most kMost.
  void multiply(const std::byte* rows, int64_t n, const TileWords& words, int64_t column,
                int64_t tiles, AheadLines& ahead) {
    multiply_up_to<kMost>(rows, n, words, column, tiles, ahead);
  }
  /// 16 sums of a row, of tile j of columns, times a scale.
  [[gnu::always_inline]] __m512 at(int64_t row, int64_t j, float scale) const {
    return P::sums(sums_ + row * kRow + j * tile_row_bytes, tile_rows * kRow, scale);
  }

 private:
  static constexpr int64_t kRow = kMost * tile_row_bytes;

  template <int V>
  void multiply_up_to(const std::byte* rows, int64_t n, const TileWords& words, int64_t column,
                      int64_t tiles, AheadLines& ahead) {
    if constexpr (V > 1) {
      if (tiles < V) return multiply_up_to<V - 1>(rows, n, words, column, tiles, ahead);
    }
    multiply_tiles<V>(rows, n, words, column, ahead);
  }

  // Tiles 0 to 3 are sums, 4 and 5 a chunk of rows, 6 and 7 words, in turns.
  template <int V>
  void multiply_tiles(const std::byte* rows, int64_t n, const TileWords& words, int64_t column,
                      AheadLines& ahead) {
    unroll<P::kPieces * V>([](auto c) { Unit::template zero<c.value>(); });
    for (int64_t chunk = 0; chunk < chunks<P>(n); ++chunk) {
      const std::byte* a = rows + split_line + chunk * tile_row_bytes;
      unroll<P::kPieces>([&](auto p) {
        Unit::template load<4 + p.value>(a + p * chunks<P>(n) * tile_row_bytes, row_bytes<P>(n));
      });
      const std::byte* b = words.at(chunk, column);
      unroll<V>([&](auto j) {
        constexpr int sums = decltype(j)::value, tile = 6 + sums % 2;
        ahead.step();
        Unit::template load<tile>(b + j * tile_row_bytes, 4 * words.columns);
        unroll<P::kPieces>(
            [](auto p) { P::template add<p.value * V + sums, 4 + p.value, tile>(); });
      });
    }
    unroll<P::kPieces * V>([&](auto c) {
      std::byte* piece = sums_ + c / V * tile_rows * kRow;
      Unit::template store<c.value>(piece + c % V * tile_row_bytes, kRow);
    });
  }

  alignas(64) std::byte sums_[P::kPieces * tile_rows * kRow];
};

}  // namespace gqa::kernels
HWY_POP_ATTRIBUTES

#endif
