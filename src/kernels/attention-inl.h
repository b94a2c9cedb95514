// Per-target: attention over one block of keys. Included once per instruction set, after
// codec-inl.h.

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// Register tiles. With 32 registers, 6 rows x 4 vectors of accumulators leave room for the 4
// vectors of keys or values and a broadcast; with 16, 6 x 2 do.
#if HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr int kVectors = 4;
#else
inline constexpr int kVectors = 2;
#endif
inline constexpr int kRows = few_rows;

/// exp(x) for x <= 0; exactly 0 below -87.3 (where exp leaves the normal range) and for -inf; NaN
/// stays. Range reduction by ln 2 in two parts, then 1 + r + r^2 q(r) on |r| <= ln(2) / 2, q of
/// degree 4 fitted for the least maximal relative error, 2^-27.9: in all below 2 * 2^-24 (tested
/// against double). Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, so that
/// no conversion is needed; what lies below -87.3 becomes nonsense on the way and 0 at the end.
HWY_INLINE VF ExpNegative(F32 d, VF x) {
  const hn::RebindToSigned<F32> di;
  const VF shift = hn::Set(d, 12582912.0f);
  const VF shifted = hn::MulAdd(x, hn::Set(d, 1.44269504088896341f), shift);
  const VF n = hn::Sub(shifted, shift);
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440054690583e-4f), r);
  VF q = hn::Set(d, 0.001381417503580451f);
  q = hn::MulAdd(q, r, hn::Set(d, 0.008368922397494316f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.04166840761899948f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.1666651964187622f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.4999999403953552f));
  const VF p = hn::Add(hn::MulAdd(q, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto power = hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, shifted)), hn::Set(di, 127 << 23));
  const VF result = hn::Mul(p, hn::BitCast(d, power));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.3f)), result);
}

/// Spreads prefetching evenly over the steps of a loop.
class AheadLines {
 public:
  AheadLines(Ahead ahead, int64_t steps)
      : next_(static_cast<const char*>(ahead.data)),
        end_(next_ + ahead.bytes),
        stride_(ahead.bytes == 0 ? 0 : ((ahead.bytes / 64 + steps - 1) / steps) * 64) {}
  HWY_INLINE void step() {
    const char* until = next_ + stride_;
    if (until > end_) until = end_;
    for (; next_ < until; next_ += 64) __builtin_prefetch(next_);
  }

 private:
  const char* next_;
  const char* end_;
  int64_t stride_;
};

/// C [R][.] (+)= A [R][depth] * B [depth][.] for V vectors of columns; B is decoded in registers.
template <int R, int V, bool kAdd, typename T>
HWY_INLINE void Tile(const float* a, int64_t a_row, const T* b, int64_t b_row, int64_t depth,
                     float* c, int64_t c_row, AheadLines& ahead) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF sum[R][V];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j)
      sum[r][j] = kAdd ? hn::LoadU(d, c + r * c_row + j * lanes) : hn::Zero(d);
  }
  for (int64_t k = 0; k < depth; ++k) {
    ahead.step();
    VF column[V];
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) column[j] = LoadAsF32(d, b + k * b_row + j * lanes);
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      const VF x = hn::Set(d, a[r * a_row + k]);
      HWY_UNROLL(4)
      for (int j = 0; j < V; ++j) sum[r][j] = hn::MulAdd(x, column[j], sum[r][j]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) hn::StoreU(sum[r][j], d, c + r * c_row + j * lanes);
  }
}

/// Tile<R, V> for a number of rows known at run time, 1 <= rows <= kRows.
template <int V, bool kAdd, typename T>
HWY_INLINE void TileRows(int64_t rows, const float* a, int64_t a_row, const T* b, int64_t b_row,
                         int64_t depth, float* c, int64_t c_row, AheadLines& ahead) {
  switch (rows) {
    case 1:
      return Tile<1, V, kAdd>(a, a_row, b, b_row, depth, c, c_row, ahead);
    case 2:
      return Tile<2, V, kAdd>(a, a_row, b, b_row, depth, c, c_row, ahead);
    case 3:
      return Tile<3, V, kAdd>(a, a_row, b, b_row, depth, c, c_row, ahead);
    case 4:
      return Tile<4, V, kAdd>(a, a_row, b, b_row, depth, c, c_row, ahead);
    case 5:
      return Tile<5, V, kAdd>(a, a_row, b, b_row, depth, c, c_row, ahead);
    default:
      return Tile<6, V, kAdd>(a, a_row, b, b_row, depth, c, c_row, ahead);
  }
}

/// C [rows][columns] (+)= A [rows][depth] * B [depth][columns], columns a whole number of vectors.
template <bool kAdd, typename T>
HWY_INLINE void Product(const float* a, int64_t a_row, int64_t rows, const T* b, int64_t b_row,
                        int64_t depth, int64_t columns, float* c, int64_t c_row, Ahead next) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t step = kVectors * lanes;
  AheadLines ahead(next, depth * ((columns + step - 1) / step));
  for (int64_t row = 0; row < rows; row += kRows) {
    const int64_t n = rows - row < kRows ? rows - row : kRows;
    const float* a_rows = a + row * a_row;
    float* c_rows = c + row * c_row;
    int64_t column = 0;
    for (; column + step <= columns; column += step) {
      TileRows<kVectors, kAdd>(n, a_rows, a_row, b + column, b_row, depth, c_rows + column, c_row,
                               ahead);
    }
    for (; column < columns; column += lanes) {
      TileRows<1, kAdd>(n, a_rows, a_row, b + column, b_row, depth, c_rows + column, c_row, ahead);
    }
  }
}

void Score(const float* q, int64_t rows, int64_t head_dim, DType t, const void* k, Range keys,
           float* scores, Ahead next) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  const int64_t begin = keys.begin / lanes * lanes;
  const int64_t end = (keys.end + lanes - 1) / lanes * lanes;
  WithElement(t, [&](auto* type) HWY_ATTR {
    Product<false>(q, head_dim, rows, static_cast<decltype(type)>(k) + begin, key_block, head_dim,
                   end - begin, scores + begin, key_block, next);
  });
}

void Accumulate(const float* weights, int64_t rows, DType t, const void* v, int64_t v_stride,
                Range keys, float* acc, Ahead next) {
  WithElement(t, [&](auto* type) HWY_ATTR {
    Product<true>(weights + keys.begin, key_block, rows,
                  static_cast<decltype(type)>(v) + keys.begin * v_stride, v_stride,
                  keys.end - keys.begin, v_stride, acc, v_stride, next);
  });
}

void ScaleRow(float factor, float* row, int64_t n) {
  const F32 d;
  const VF f = hn::Set(d, factor);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Mul(f, hn::LoadU(d, row + i)), d, row + i);
  }
}

void Softcap(float* x, int64_t n, float cap) {
  const F32 d;
  const VF c = hn::Set(d, cap);
  const VF inverse = hn::Set(d, 1.0f / cap);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Mul(c, hn::Tanh(d, hn::Mul(inverse, hn::LoadU(d, x + i)))), d, x + i);
  }
}

void SubtractDistance(float* scores, float ahead, float slope) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < key_block; i += lanes) {
    const VF key = hn::Iota(d, static_cast<float>(i));
    const VF distance = hn::Abs(hn::Sub(hn::Set(d, ahead), key));
    const VF score = hn::LoadU(d, scores + i);
    hn::StoreU(hn::NegMulAdd(hn::Set(d, slope), distance, score), d, scores + i);
  }
}

void Add(float* x, const float* y, int64_t n) {
  const F32 d;
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  }
}

uint64_t AboveMinusInfinity(const float* x) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF none = hn::Set(d, -std::numeric_limits<float>::infinity());
  uint64_t all = 0;
  for (int64_t i = 0; i < key_block; i += lanes) {
    uint8_t bytes[8] = {};
    // Not Ne(), which some instruction sets deny of NaN.
    hn::StoreMaskBits(d, hn::Not(hn::Eq(hn::LoadU(d, x + i), none)), bytes);
    uint64_t bits;
    std::memcpy(&bits, bytes, sizeof bits);
    all |= bits << i;
  }
  return all;
}

/// Scores whose bit is not set become -inf; returns the largest.
float MaskAndMax(float* scores, uint64_t visible) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VF masked = hn::Set(d, -std::numeric_limits<float>::infinity());
  VF largest = masked;
  if (visible == ~uint64_t{0}) {
    for (int64_t i = 0; i < key_block; i += lanes) {
      largest = hn::Max(largest, hn::LoadU(d, scores + i));
    }
    return hn::GetLane(hn::MaxOfLanes(d, largest));
  }
  for (int64_t i = 0; i < key_block; i += lanes) {
    const uint64_t bits = visible >> i;
    uint8_t bytes[8];
    std::memcpy(bytes, &bits, sizeof bits);
    const VF x = hn::IfThenElse(hn::LoadMaskBits(d, bytes), hn::LoadU(d, scores + i), masked);
    hn::StoreU(x, d, scores + i);
    largest = hn::Max(largest, x);
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

/// Brings a row's state and accumulator up to a new maximum, if it is one.
HWY_INLINE void RaiseMax(float max, RowState& state, float* acc, int64_t v_stride) {
  if (!(max > state.max)) return;
  const float factor = std::exp(state.max - max);
  state.sum *= factor;
  ScaleRow(factor, acc, v_stride);
  state.max = max;
}

/// Scores of a row become weights; returns their sum.
HWY_INLINE float Weigh(float* scores, float max) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // Nothing seen yet: subtracting 0 leaves the scores at -inf and their weights at 0.
  const bool nothing = max == -std::numeric_limits<float>::infinity();
  const VF offset = hn::Set(d, nothing ? 0.0f : max);
  VF sum = hn::Zero(d);
  for (int64_t i = 0; i < key_block; i += lanes) {
    const VF weight = ExpNegative(d, hn::Sub(hn::LoadU(d, scores + i), offset));
    hn::StoreU(weight, d, scores + i);
    sum = hn::Add(sum, weight);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

void Softmax(float* scores, const uint64_t* visible, int64_t rows, RowState* states, float* acc,
             int64_t v_stride) {
  // All maxima before all exponentials: the processor then works on several rows at a time, which
  // a row's way from the one to the other is too long for.
  for (int64_t r = 0; r < rows; ++r) {
    if (visible[r] == 0) continue;
    const float max = MaskAndMax(scores + r * key_block, visible[r]);
    RaiseMax(max, states[r], acc + r * v_stride, v_stride);
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * key_block;
    if (visible[r] != 0) {
      states[r].sum += Weigh(row, states[r].max);
    } else {
      std::memset(row, 0, key_block * sizeof(float));
    }
  }
}

void Merge(RowState& state, float* acc, const RowState& later, const float* later_acc,
           int64_t v_stride) {
  const float none = -std::numeric_limits<float>::infinity();
  // A row without a key has max -inf, sum 0 and a zero accumulator; exp(-inf - -inf) would be NaN.
  const float max = later.max > state.max ? later.max : state.max;
  const float mine = state.max == none ? 0.0f : std::exp(state.max - max);
  const float theirs = later.max == none ? 0.0f : std::exp(later.max - max);
  // A NaN sum stays one even where its factor is 0.
  state = {max, mine * state.sum + theirs * later.sum};
  const F32 d;
  const VF f = hn::Set(d, mine);
  const VF g = hn::Set(d, theirs);
  for (int64_t i = 0; i < v_stride; i += static_cast<int64_t>(hn::Lanes(d))) {
    const VF scaled = hn::Mul(f, hn::LoadU(d, acc + i));
    hn::StoreU(hn::MulAdd(g, hn::LoadU(d, later_acc + i), scaled), d, acc + i);
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
