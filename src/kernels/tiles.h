// What a unit that multiplies tiles does. There are two: the processor's (hardware_tiles.h), and
// one in software for machines without (tests/emulated/tiles.h). Both have the same static
// functions, and eight tiles for each thread:
//
//   configure(shapes), release()   all tiles become 0; nothing else may come before the one or
//                                  behind the other
//   zero<T>()                      tile T = 0
//   load<T>(rows, stride)          tile T = rows of memory, `stride` bytes apart, of its shape
//   store<T>(rows, stride)         the other way
//   add_bf16<C, A, B>()            C += A * B, of pairs of bf16, in f32
//   add_int8<C, A, B>()            C += A * B, of fours of signed bytes, in 32 bits
//   round(x, to)                   to [32] bf16 = x [32] f32, to nearest even; or of two vectors
//
// Row k of B holds what a word of A meets: its columns are words of elements 2 k and 2 k + 1 of
// bf16, 4 k to 4 k + 3 of int8, as a cache holds them (core/kv_words.h).
#pragma once

#include <cstdint>

namespace gqa::kernels {

/// A tile is at most this many rows of this many bytes.
inline constexpr int64_t tile_rows = 16;
inline constexpr int64_t tile_row_bytes = 64;

/// The tiles' shapes, as LDTILECFG reads them.
struct TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  ///< of tiles 0 to 7; 0 behind them
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

}  // namespace gqa::kernels
