// Per-target: a register tile of a dense product, and the weights that it reads. Included once per
// instruction set, after load-inl.h.
//
// The sum of one output element is cut into slices of dense_depth inputs. Within a slice each lane
// is one chain of multiply-adds over every lanes-th input; then the lanes are added in one fixed
// tree, and slices in ascending order. Register tiles, cache blocks, copies of operands and the
// order in which memory is walked change where numbers come from, never that order: so each row has
// the bits it has alone.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// Register tiles of kDenseRows rows of inputs x 4 rows of weights: 24 accumulators, 6 inputs and a
// weight with 32 registers; 8, 2 and 1 with 16.
inline constexpr int kDenseRows = kManyRegisters ? 6 : 3;
/// Bytes of memory that are fetched together.
inline constexpr int64_t kLineBytes = 64;

/// What a product is, apart from where its weights and results lie.
struct DenseShape {
  int64_t in;
  int64_t x_stride;
  int64_t rows;
  int64_t y_stride;

  int64_t slice(int64_t i) const { return in - i < dense_depth ? in - i : dense_depth; }
};

/// The last `n` elements (fewer than a vector) at p, zeros behind them. Not inlined: it would be
/// most of the code of every tile, which usual sizes never reach.
template <typename T>
HWY_NOINLINE VF LoadTail(F32 d, const T* p, int64_t n) {
  HWY_ALIGN float lanes[hn::MaxLanes(F32())] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = OneAsF32(p + i);
  return hn::Load(d, lanes);
}

/// Rows of weights where they lie, of an element type that means what it says.
template <typename T>
struct WeightRows {
  const T* data;
  int64_t in;

  static constexpr int64_t kLine = kLineBytes / static_cast<int64_t>(sizeof(T));
  // For DenseFew(): up to how many rows it pays, slices at a time, lines of each in turn, and how
  // far ahead memory is asked for.
  static constexpr int kFewRows = sizeof(T) == 4 ? 1 : 2;
  static constexpr int kFewSlices = 1;
  static constexpr int kFewLines = 4;
  static constexpr int64_t kFewAhead = 8192;

  struct Line {
    const T* data;
    HWY_INLINE VF Load(F32 d, int64_t i) const { return LoadAsF32(d, data + i); }
  };
  /// kLine weights of the first row.
  HWY_INLINE Line LineAt(F32, int64_t i) const { return {data + i}; }

  WeightRows At(int64_t o, int64_t i) const { return {data + o * in + i, in}; }
  HWY_INLINE VF Load(F32 d, int64_t o, int64_t i) const { return LoadAsF32(d, data + o * in + i); }
  VF Tail(F32 d, int64_t o, int64_t i, int64_t n) const {
    return LoadTail(d, data + o * in + i, n);
  }
  HWY_INLINE void Prefetch(int64_t o, int64_t i) const { __builtin_prefetch(data + o * in + i); }
};

/// Rows of f32 weights that Pack() has copied, O of them.
template <int O>
struct PackedRows {
  const float* data;

  static constexpr int64_t kLine = kLineBytes / static_cast<int64_t>(sizeof(float));
  HWY_INLINE VF Load(F32 d, int64_t o, int64_t i) const {
    return hn::LoadU(d, data + o * static_cast<int64_t>(hn::Lanes(d)) + i * O);
  }
  VF Tail(F32 d, int64_t, int64_t, int64_t) const { return hn::Zero(d); }
};

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

/// The products of R rows of x and O rows of w, n inputs, added up to y [R][O]. Rows of x lie in
/// place or, as rows of w, packed. `ahead`: weights to be prefetched on the way, or null.
template <int R, int O, bool kPacked, class W>
HWY_INLINE void DenseTile(const float* x, int64_t x_stride, const W& w, const W* ahead, int64_t n,
                          bool add, float* y, int64_t y_stride) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t x_row = kPacked ? lanes : x_stride;
  constexpr int kXStep = kPacked ? R : 1;  // NOLINT(bugprone-branch-clone): R may be 1
  VF sum[R][O];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int o = 0; o < O; ++o) sum[r][o] = hn::Zero(d);
  }
  const auto multiply = [&](int64_t i) HWY_ATTR {
    VF inputs[R];
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) inputs[r] = hn::LoadU(d, x + r * x_row + i * kXStep);
    HWY_UNROLL(8)
    for (int o = 0; o < O; ++o) {
      const VF weight = w.Load(d, o, i);
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) sum[r][o] = hn::MulAdd(inputs[r], weight, sum[r][o]);
    }
  };
  int64_t i = 0;
  if constexpr (!kPacked) {
    for (; ahead != nullptr && i + W::kLine <= n; i += W::kLine) {
      HWY_UNROLL(8)
      for (int o = 0; o < O; ++o) ahead->Prefetch(o, i);
      if constexpr (R * O <= 16) {
        HWY_UNROLL(4)
        for (int64_t v = 0; v < W::kLine; v += lanes) multiply(i + v);
      } else {  // more than one turn would not fit the registers
        HWY_UNROLL(1)
        for (int64_t v = 0; v < W::kLine; v += lanes) multiply(i + v);
      }
    }
  }
  for (; i + lanes <= n; i += lanes) multiply(i);
  if (!kPacked && i < n) {
    VF inputs[R];
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) inputs[r] = LoadTail(d, x + r * x_row + i, n - i);
    HWY_UNROLL(8)
    for (int o = 0; o < O; ++o) {
      const VF weight = w.Tail(d, o, i, n - i);
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) sum[r][o] = hn::MulAdd(inputs[r], weight, sum[r][o]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) PutSums<O>(d, sum[r], add, y + r * y_stride);
}

/// DenseTile<R, O> for a number of rows known at run time, 1 <= rows <= kDenseRows.
template <int O, bool kPacked, class W, int R = kDenseRows>
HWY_INLINE void DenseTileRows(int64_t rows, const float* x, int64_t x_stride, const W& w,
                              const W* ahead, int64_t n, bool add, float* y, int64_t y_stride) {
  if constexpr (R > 1) {
    if (rows < R) {
      return DenseTileRows<O, kPacked, W, R - 1>(rows, x, x_stride, w, ahead, n, add, y, y_stride);
    }
  }
  DenseTile<R, O, kPacked>(x, x_stride, w, ahead, n, add, y, y_stride);
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
