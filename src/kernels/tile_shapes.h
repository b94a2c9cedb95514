// Which shapes tiles have.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/tiles.h"

namespace gqa::kernels {

/// The shapes that a unit's tiles have on this thread: to change them takes as long as several
/// products.
template <class Unit>
class Shaped {
 public:
  /// For up to 32 rows: the first 16 of them in the first row of tiles, if there are two.
  static void by(int64_t rows, bool pairs) {
    if (rows == rows_ && pairs == pairs_) return;
    rows_ = rows;
    pairs_ = pairs;
    const bool two = pairs && rows > tile_rows;
    TileShapes shapes;
    for (int t = 0; t < 8; ++t) {
      shapes.row_bytes[t] = tile_row_bytes;
      const bool second = two && (t == 2 || t == 3 || t == 5);
      const int64_t n = second ? rows - tile_rows : std::min(rows, tile_rows);
      shapes.rows[t] = static_cast<uint8_t>(t < 6 ? n : tile_rows);
    }
    Unit::configure(shapes);
  }
  static void end() {
    if (rows_ != 0) Unit::release();
    rows_ = 0;
  }

 private:
  static inline thread_local int64_t rows_ = 0;  ///< 0: the tiles have no shapes
  static inline thread_local bool pairs_ = false;
};

}  // namespace gqa::kernels
