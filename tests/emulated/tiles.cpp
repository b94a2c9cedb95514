#include "emulated/tiles.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <hwy/base.h>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/fail.h"

HWY_PUSH_ATTRIBUTES("avx2,fma")
namespace gqa::kernels {
namespace {

/// Behind a tile's rows and columns there are zeros.
struct TileData {
  alignas(64) uint32_t words[tile_rows][tile_row_bytes / 4];
};

thread_local TileShapes configured{.palette = 0};
thread_local TileData tiles[8];

void demand(bool ok, const char* what) {
  if (!ok) fail(ErrorKind::usage, "emulated tiles: {}", what);
}

/// In which subnormal numbers count as 0, before and after an operation, whatever the thread has
/// set; and nearest even is where all round to.
class TileArithmetic {
 public:
  TileArithmetic() : before_(_mm_getcsr()) { _mm_setcsr(masked_ | flush_ | subnormals_are_zero_); }
  ~TileArithmetic() { _mm_setcsr(before_); }
  TileArithmetic(const TileArithmetic&) = delete;
  TileArithmetic& operator=(const TileArithmetic&) = delete;

 private:
  static constexpr unsigned masked_ = 0x1f80, flush_ = 0x8000, subnormals_are_zero_ = 0x40;
  unsigned before_;
};

float upper(uint32_t word) { return std::bit_cast<float>(word & 0xffff0000u); }
int32_t upper_byte(uint32_t word) { return static_cast<int32_t>(word) >> 24; }
float lower(uint32_t word) { return std::bit_cast<float>(word << 16); }

/// One row of C += A * B: even and odd elements each in a chain of their own from 0, their sum
/// added to C. A function of its own, so that the compiler leaves it where TileArithmetic is.
[[gnu::noinline]] void add_bf16_row(uint32_t (&c)[16], const uint32_t (&a)[16], const TileData& b,
                                    int depth) {
  float even[16] = {}, odd[16] = {};
  for (int k = 0; k < depth; ++k) {
    for (int n = 0; n < 16; ++n) {
      even[n] = std::fma(lower(a[k]), lower(b.words[k][n]), even[n]);
      odd[n] = std::fma(upper(a[k]), upper(b.words[k][n]), odd[n]);
    }
  }
  for (int n = 0; n < 16; ++n) {
    c[n] = std::bit_cast<uint32_t>(std::bit_cast<float>(c[n]) + (even[n] + odd[n]));
  }
}

void add_int8_row(uint32_t (&c)[16], const uint32_t (&a)[16], const TileData& b, int depth) {
  for (int k = 0; k < depth; ++k) {
    for (int n = 0; n < 16; ++n) {
      for (int left = 0; left < 32; left += 8) {
        c[n] += static_cast<uint32_t>(upper_byte(a[k] << left) * upper_byte(b.words[k][n] << left));
      }
    }
  }
}

/// C's rows one by one, by body(row of C, row of A, B, words of a row of A).
template <typename Body>
void multiply(int c, int a, int b, const Body& body) {
  const auto& [palette, start_row, reserved, bytes, rows] = configured;
  demand(palette == 1, "not configured");
  demand(c != a && c != b && a != b, "operands are not three tiles");
  demand(rows[c] == rows[a] && bytes[c] == bytes[b] && bytes[a] == 4 * rows[b] && rows[c] > 0 &&
             bytes[c] > 0 && bytes[a] > 0,
         "shapes do not fit");
  for (int m = 0; m < rows[c]; ++m) {
    uint32_t(&row)[16] = tiles[c].words[m];
    body(row, tiles[a].words[m], tiles[b], bytes[a] / 4);
    std::fill(row + bytes[c] / 4, row + 16, 0);
  }
}

}  // namespace

void EmulatedTiles::configure(const TileShapes& shapes) {
  demand(shapes.palette == 1 && shapes.start_row == 0, "no such palette");
  for (int t = 0; t < 16; ++t) {
    const bool used = shapes.rows[t] > 0 && t < 8;
    demand(shapes.rows[t] <= tile_rows && shapes.row_bytes[t] <= tile_row_bytes &&
               shapes.row_bytes[t] % 4 == 0 && used == (shapes.row_bytes[t] > 0) &&
               (used || shapes.rows[t] == 0),
           "no such shape");
  }
  configured = shapes;
  std::memset(tiles, 0, sizeof tiles);
}

void EmulatedTiles::release() { configured = {.palette = 0}; }

void EmulatedTiles::zero_tile(int tile) {
  demand(configured.palette == 1, "not configured");
  std::memset(&tiles[tile], 0, sizeof tiles[tile]);
}

void EmulatedTiles::load_tile(int tile, const void* rows, int64_t stride) {
  zero_tile(tile);
  for (int m = 0; m < configured.rows[tile]; ++m) {
    std::memcpy(tiles[tile].words[m], static_cast<const char*>(rows) + m * stride,
                configured.row_bytes[tile]);
  }
}

void EmulatedTiles::store_tile(int tile, void* rows, int64_t stride) {
  demand(configured.palette == 1, "not configured");
  for (int m = 0; m < configured.rows[tile]; ++m) {
    std::memcpy(static_cast<char*>(rows) + m * stride, tiles[tile].words[m],
                configured.row_bytes[tile]);
  }
}

void EmulatedTiles::multiply_bf16(int c, int a, int b) {
  const TileArithmetic arithmetic;
  multiply(c, a, b, add_bf16_row);
}

void EmulatedTiles::multiply_int8(int c, int a, int b) { multiply(c, a, b, add_int8_row); }

void EmulatedTiles::round(const float* x, void* to) {
  uint16_t rounded[32];
  for (int i = 0; i < 32; ++i) {
    const auto bits = std::bit_cast<uint32_t>(x[i]);
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t r = bits + 0x7fffu + (bits >> 16 & 1u);
    if (magnitude < 0x00800000u) r = bits & 0x80000000u;
    if (magnitude > 0x7f800000u) r = bits | 0x00400000u;
    rounded[i] = static_cast<uint16_t>(r >> 16);
  }
  std::memcpy(to, rounded, sizeof rounded);
}

}  // namespace gqa::kernels
HWY_POP_ATTRIBUTES

#endif
