// Per-target: dense products. Included once per instruction set, after dense_tile-inl.h, which says
// what order sums have, dense_few-inl.h and int8_weights-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// Up to this many rows, copying operands takes longer than reading them in place.
inline constexpr int64_t kInPlaceRows = 16;
/// Inputs from which on rows of weights are prefetched: shorter ones are one stream of memory.
inline constexpr int64_t kPrefetchedRow = 512;
/// Bytes of weights that are prefetched before they are multiplied.
inline constexpr int64_t kAheadBytes = 16384;

/// Calls f(first, count) for tiles of at most kDenseRows rows, as even as they can be.
template <typename F>
HWY_INLINE void ForTiles(int64_t rows, const F& f) {
  const int64_t tiles = (rows + kDenseRows - 1) / kDenseRows;
  const int64_t least = rows / tiles;
  const int64_t larger = rows % tiles;
  for (int64_t r = 0, t = 0; t < tiles; ++t) {
    const int64_t count = least + (t < larger ? 1 : 0);
    f(r, count);
    r += count;
  }
}

/// n inputs of O outputs of R rows, or of any number of rows where R is 0; weights and inputs read
/// in place.
template <int R, int O, class W>
HWY_INLINE void DenseInPlaceTile(const DenseShape& s, const W& w, const W* ahead, int64_t n,
                                 const float* x, bool add, float* y) {
  if constexpr (R > 0) {
    DenseTile<R, O, false>(x, s.x_stride, w, ahead, n, add, y, s.y_stride);
  } else {
    ForTiles(s.rows, [&](int64_t r, int64_t count) HWY_ATTR {
      DenseTileRows<O, false>(count, x + r * s.x_stride, s.x_stride, w, r == 0 ? ahead : nullptr, n,
                              add, y + r * s.y_stride, s.y_stride);
    });
  }
}

/// One slice of all outputs after the other: its inputs stay in the first-level cache, and what
/// comes kAheadBytes later is prefetched.
template <int R, class W>
void DenseInPlace(DenseShape s, const W& w, int64_t begin, int64_t end, const float* x, float* y) {
  // 4 chains of one row would not keep the multipliers busy.
  constexpr int kWide = R > 0 && R * 8 <= 4 * kDenseRows ? 8 : 4;
  for (int64_t i = 0; i < s.in; i += dense_depth) {
    const int64_t n = s.slice(i);
    const int64_t rows_ahead = (kAheadBytes / (n * kLineBytes / W::kLine) + kWide) / kWide * kWide;
    const auto put = [&](int64_t o, auto width) HWY_ATTR {
      constexpr int kWidth = decltype(width)::value;
      const int64_t next = o + rows_ahead;
      const bool here = next + kWidth <= end;
      const W ahead = here ? w.At(next, i) : w.At(begin, i + n);
      const bool there =
          s.in >= kPrefetchedRow && (here || (i + n < s.in && begin + kWidth <= end));
      DenseInPlaceTile<R, kWidth>(s, w.At(o, i), there ? &ahead : nullptr, n, x + i, i > 0, y + o);
    };
    int64_t o = begin;
    for (; o + kWide <= end; o += kWide) put(o, std::integral_constant<int, kWide>());
    for (; o + 4 <= end; o += 4) put(o, std::integral_constant<int, 4>());
    for (; o < end; ++o) put(o, std::integral_constant<int, 1>());
  }
}

template <class W, int R = kDenseRows>
void DenseInPlaceRows(const DenseShape& s, const W& w, int64_t begin, int64_t end, const float* x,
                      float* y) {
  if constexpr (R > 1) {
    if (s.rows < R) return DenseInPlaceRows<W, R - 1>(s, w, begin, end, x, y);
  }
  if constexpr (R <= W::kFewRows && hn::MaxLanes(F32()) > 1) {
    if (s.in >= kLongRow) return DenseFew<R>(s, w, begin, end, x, y);
  }
  DenseInPlace<R>(s, w, begin, end, x, y);
}

/// dst [vectors of n elements][count][lanes] = the rows of w from `row` on, n elements, zeros
/// behind the last one.
template <class W>
void Pack(const W& w, int64_t count, int64_t n, float* dst) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < count; ++r) {
    float* to = dst + r * lanes;
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes, to += count * lanes) hn::StoreU(w.Load(d, r, i), d, to);
    if (i < n) hn::StoreU(w.Tail(d, r, i, n - i), d, to);
  }
}

/// O outputs of all rows, n inputs: packed weights by tiles of packed inputs.
template <int O>
void DensePacked(const DenseShape& s, int64_t n, const float* x, const float* w, bool add,
                 float* y) {
  const PackedRows<O> weights{w};
  ForTiles(s.rows, [&](int64_t r, int64_t count) HWY_ATTR {
    DenseTileRows<O, true>(count, x + r * n, 0, weights, static_cast<const PackedRows<O>*>(nullptr),
                           n, add, y + r * s.y_stride, s.y_stride);
  });
}

/// Asks for rows [4, 8) of the weights, n inputs each: reading them then overlaps with the tiles of
/// rows [0, 4). They lie too far apart for the machine to foresee.
template <class W>
HWY_INLINE void PrefetchNext(const W& w, int64_t n) {
  for (int64_t o = 4; o < 8; ++o) {
    for (int64_t i = 0; i < n; i += W::kLine) w.Prefetch(o, i);
  }
}

template <class W>
void DenseAs(const DenseShape& s, const W& w, int64_t begin, int64_t end, const float* x, float* y,
             float* scratch) {
  if (s.rows <= kDenseRows) return DenseInPlaceRows(s, w, begin, end, x, y);
  if (s.rows <= kInPlaceRows) return DenseInPlace<0>(s, w, begin, end, x, y);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  float* weights = scratch + s.rows * dense_depth;
  for (int64_t i = 0; i < s.in; i += dense_depth) {
    const int64_t n = s.slice(i);
    const int64_t padded = (n + lanes - 1) / lanes * lanes;
    ForTiles(s.rows, [&](int64_t r, int64_t count) HWY_ATTR {
      Pack(WeightRows<float>{x + r * s.x_stride + i, s.x_stride}, count, n, scratch + r * padded);
    });
    int64_t o = begin;
    for (; o + 4 <= end; o += 4) {
      const W here = w.At(o, i);
      Pack(here, 4, n, weights);
      if (o + 8 <= end) PrefetchNext(here, n);
      DensePacked<4>(s, padded, scratch, weights, i > 0, y + o);
    }
    for (; o < end; ++o) {
      Pack(w.At(o, i), 1, n, weights);
      DensePacked<1>(s, padded, scratch, weights, i > 0, y + o);
    }
  }
}

void Dense(DType t, const void* w, int64_t in, int64_t begin, int64_t end, const float* x,
           int64_t x_stride, int64_t rows, float* y, int64_t y_stride, float* scratch) {
  const DenseShape shape{in, x_stride, rows, y_stride};
  WithElement(t, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    DenseAs(shape, WeightRows<T>{static_cast<const T*>(w), in}, begin, end, x, y, scratch);
  });
}

void DenseInt8(const int8_t* w, const float* scales, int64_t in, int64_t begin, int64_t end,
               const float* x, int64_t x_stride, int64_t rows, float* y, int64_t y_stride,
               float* scratch) {
  const DenseShape shape{in, x_stride, rows, y_stride};
  DenseAs(shape, Int8Rows{w, scales, in, int8_blocks(in)}, begin, end, x, y, scratch);
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
