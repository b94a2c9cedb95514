// Per-target: dense products. Included once per instruction set, after load-inl.h.
//
// The sum of one output element is cut into slices of dense_depth inputs. Within a slice each lane
// is one chain of multiply-adds over every lanes-th input; then the lanes are added in one fixed
// tree, and slices in ascending order. Register tiles, cache blocks and copies of operands change
// where numbers come from, never that order: so each row has the bits it has alone.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// Register tiles of kDenseRows rows of inputs x 4 rows of weights: 24 accumulators, 6 inputs and a
// weight with 32 registers; 8, 2 and 1 with 16.
#if HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr int kDenseRows = 6;
#else
inline constexpr int kDenseRows = 3;
#endif
/// Up to this many rows, copying operands takes longer than reading them in place.
inline constexpr int64_t kInPlaceRows = 16;

/// The last `n` elements (fewer than a vector) at p, zeros behind them. Not inlined: it would be
/// most of the code of every tile, which usual sizes never reach.
template <typename T>
HWY_NOINLINE VF LoadTail(F32 d, const T* p, int64_t n) {
  HWY_ALIGN float lanes[hn::MaxLanes(F32())] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = OneAsF32(p + i);
  return hn::Load(d, lanes);
}

#if HWY_TARGET == HWY_SCALAR

/// to [O] (+)= the sums of the lanes of each of O vectors.
template <int O>
HWY_INLINE void PutSums(F32, const VF* sum, bool add, float* to) {
  for (int o = 0; o < O; ++o) to[o] = add ? to[o] + hn::GetLane(sum[o]) : hn::GetLane(sum[o]);
}

#else

using F32x4 = hn::FixedTag<float, 4>;

/// The sum of a vector's blocks of four lanes.
template <class D>
HWY_INLINE hn::Vec<F32x4> SumOfBlocks([[maybe_unused]] D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return SumOfBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// The sums of the lanes of each of four vectors. Transposes each block of 4 x 4 on the way, so
/// that it takes few more operations than adding up the lanes of one vector.
HWY_INLINE hn::Vec<F32x4> SumsOfLanes(F32 d, VF a, VF b, VF c, VF e) {
  const hn::Repartition<double, F32> pairs;
  const VF ab = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
  const VF ce = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
  const auto ab_pairs = hn::BitCast(pairs, ab);
  const auto ce_pairs = hn::BitCast(pairs, ce);
  const VF even = hn::BitCast(d, hn::InterleaveLower(pairs, ab_pairs, ce_pairs));
  const VF odd = hn::BitCast(d, hn::InterleaveUpper(pairs, ab_pairs, ce_pairs));
  return SumOfBlocks(d, hn::Add(even, odd));
}

/// to [O] (+)= the sums of the lanes of each of O vectors.
template <int O>
HWY_INLINE void PutSums(F32 d, const VF* sum, bool add, float* to) {
  if constexpr (O % 4 == 0) {
    const F32x4 d4;
    HWY_UNROLL(2)
    for (int o = 0; o < O; o += 4) {
      auto sums = SumsOfLanes(d, sum[o], sum[o + 1], sum[o + 2], sum[o + 3]);
      if (add) sums = hn::Add(hn::LoadU(d4, to + o), sums);
      hn::StoreU(sums, d4, to + o);
    }
  } else {
    const VF zero = hn::Zero(d);
    const float one = hn::GetLane(SumsOfLanes(d, sum[0], zero, zero, zero));
    to[0] = add ? to[0] + one : one;
  }
}

#endif

/// How many vectors apart a row's successive vectors are.
constexpr int StepOf(bool packed, int rows) { return packed ? rows : 1; }

/// y [R][O] (+)= the products of R rows of x and O rows of w, n inputs: packed, or rows in place.
template <int R, int O, bool kPacked, typename T>
HWY_INLINE void DenseTile(const float* x, int64_t x_stride, const T* w, int64_t w_stride, int64_t n,
                          bool add, float* y, int64_t y_stride) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t x_row = kPacked ? lanes : x_stride;
  const int64_t w_row = kPacked ? lanes : w_stride;
  constexpr int kXStep = StepOf(kPacked, R);
  constexpr int kWStep = StepOf(kPacked, O);
  VF sum[R][O];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int o = 0; o < O; ++o) sum[r][o] = hn::Zero(d);
  }
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    VF inputs[R];
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) inputs[r] = hn::LoadU(d, x + r * x_row + i * kXStep);
    HWY_UNROLL(8)
    for (int o = 0; o < O; ++o) {
      const VF weight = LoadAsF32(d, w + o * w_row + i * kWStep);
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) sum[r][o] = hn::MulAdd(inputs[r], weight, sum[r][o]);
    }
  }
  if (!kPacked && i < n) {
    VF inputs[R];
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) inputs[r] = LoadTail(d, x + r * x_row + i, n - i);
    HWY_UNROLL(8)
    for (int o = 0; o < O; ++o) {
      const VF weight = LoadTail(d, w + o * w_row + i, n - i);
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) sum[r][o] = hn::MulAdd(inputs[r], weight, sum[r][o]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) PutSums<O>(d, sum[r], add, y + r * y_stride);
}

/// DenseTile<R, O> for a number of rows known at run time, 1 <= rows <= kDenseRows.
template <int O, bool kPacked, typename T, int R = kDenseRows>
HWY_INLINE void DenseTileRows(int64_t rows, const float* x, int64_t x_stride, const T* w,
                              int64_t w_stride, int64_t n, bool add, float* y, int64_t y_stride) {
  if constexpr (R > 1) {
    if (rows < R) {
      return DenseTileRows<O, kPacked, T, R - 1>(rows, x, x_stride, w, w_stride, n, add, y,
                                                 y_stride);
    }
  }
  DenseTile<R, O, kPacked>(x, x_stride, w, w_stride, n, add, y, y_stride);
}

/// What a product is, apart from where its weights and results lie.
struct DenseShape {
  int64_t in;
  int64_t x_stride;
  int64_t rows;
  int64_t y_stride;

  int64_t slice(int64_t i) const { return in - i < dense_depth ? in - i : dense_depth; }
};

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

/// O outputs of R rows, or of any number of rows where R is 0; weights and inputs read in place.
template <int R, int O, typename T>
HWY_INLINE void DenseInPlaceTile(const DenseShape& s, const T* w, const float* x, float* y) {
  const auto slice = [&](int64_t i, int64_t n, bool add) HWY_ATTR {
    if constexpr (R > 0) {
      DenseTile<R, O, false>(x + i, s.x_stride, w + i, s.in, n, add, y, s.y_stride);
    } else {
      ForTiles(s.rows, [&](int64_t r, int64_t count) HWY_ATTR {
        DenseTileRows<O, false>(count, x + r * s.x_stride + i, s.x_stride, w + i, s.in, n, add,
                                y + r * s.y_stride, s.y_stride);
      });
    }
  };
  // The loop would cost one row of short inputs a tenth of its speed.
  if (s.in <= dense_depth) return slice(0, s.in, false);
  for (int64_t i = 0; i < s.in; i += dense_depth) slice(i, s.slice(i), i > 0);
}

template <int R, typename T>
void DenseInPlace(DenseShape s, const T* w, int64_t begin, int64_t end, const float* x, float* y) {
  // 4 chains of one row would not keep the multipliers busy.
  constexpr int kWide = R > 0 && R * 8 <= 4 * kDenseRows ? 8 : 4;
  int64_t o = begin;
  for (; o + kWide <= end; o += kWide) DenseInPlaceTile<R, kWide>(s, w + o * s.in, x, y + o);
  for (; o + 4 <= end; o += 4) DenseInPlaceTile<R, 4>(s, w + o * s.in, x, y + o);
  for (; o < end; ++o) DenseInPlaceTile<R, 1>(s, w + o * s.in, x, y + o);
}

template <typename T, int R = kDenseRows>
void DenseInPlaceRows(const DenseShape& s, const T* w, int64_t begin, int64_t end, const float* x,
                      float* y) {
  if constexpr (R > 1) {
    if (s.rows < R) return DenseInPlaceRows<T, R - 1>(s, w, begin, end, x, y);
  }
  DenseInPlace<R>(s, w, begin, end, x, y);
}

/// dst [vectors of n elements][rows][lanes] = src [rows][n], zeros behind the last element.
template <typename T>
void Pack(const T* src, int64_t stride, int64_t rows, int64_t n, float* dst) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = src + r * stride;
    float* to = dst + r * lanes;
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes, to += rows * lanes) {
      hn::StoreU(LoadAsF32(d, from + i), d, to);
    }
    if (i < n) hn::StoreU(LoadTail(d, from + i, n - i), d, to);
  }
}

/// O outputs of all rows, n inputs: packed weights by tiles of packed inputs.
template <int O>
void DensePacked(const DenseShape& s, int64_t n, const float* x, const float* w, bool add,
                 float* y) {
  ForTiles(s.rows, [&](int64_t r, int64_t count) HWY_ATTR {
    DenseTileRows<O, true>(count, x + r * n, 0, w, 0, n, add, y + r * s.y_stride, s.y_stride);
  });
}

/// Asks for rows [4, 8) of the weights, n inputs each: reading them then overlaps with the tiles of
/// rows [0, 4). They lie too far apart for the machine to foresee.
template <typename T>
HWY_INLINE void PrefetchNext(const T* w, int64_t in, int64_t n) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t o = 4; o < 8; ++o) {
    for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(w + o * in + i, 0, 2);
  }
}

template <typename T>
void DenseAs(const DenseShape& s, const T* w, int64_t begin, int64_t end, const float* x, float* y,
             float* scratch) {
  if (s.rows <= kDenseRows) return DenseInPlaceRows(s, w, begin, end, x, y);
  if (s.rows <= kInPlaceRows) return DenseInPlace<0>(s, w, begin, end, x, y);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  float* weights = scratch + s.rows * dense_depth;
  for (int64_t i = 0; i < s.in; i += dense_depth) {
    const int64_t n = s.slice(i);
    const int64_t padded = (n + lanes - 1) / lanes * lanes;
    ForTiles(s.rows, [&](int64_t r, int64_t count) HWY_ATTR {
      Pack(x + r * s.x_stride + i, s.x_stride, count, n, scratch + r * padded);
    });
    int64_t o = begin;
    for (; o + 4 <= end; o += 4) {
      Pack(w + o * s.in + i, s.in, 4, n, weights);
      if (o + 8 <= end) PrefetchNext(w + o * s.in + i, s.in, n);
      DensePacked<4>(s, padded, scratch, weights, i > 0, y + o);
    }
    for (; o < end; ++o) {
      Pack(w + o * s.in + i, s.in, 1, n, weights);
      DensePacked<1>(s, padded, scratch, weights, i > 0, y + o);
    }
  }
}

void Dense(DType t, const void* w, int64_t in, int64_t begin, int64_t end, const float* x,
           int64_t x_stride, int64_t rows, float* y, int64_t y_stride, float* scratch) {
  const DenseShape shape{in, x_stride, rows, y_stride};
  WithElement(t, [&](auto* type) {
    DenseAs(shape, static_cast<decltype(type)>(w), begin, end, x, y, scratch);
  });
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
