// What the backward of attention is made of: products of f32 matrices, one of which may be read
// transposed, the way from scores to their gradients, and from f32 to the operands of products of
// bf16.
#include <cmath>
#include <limits>

#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gradient.cpp"
#include "kernels/targets.h"
//
#include "hwy/foreach_target.h"
// These come after foreach_target.h and in this order.
#include "kernels/load-inl.h"
//
#include "kernels/bf16-inl.h"
#include "kernels/gradient-inl.h"
#include "kernels/weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// Register tiles as those of product.cpp.
inline constexpr int kGradientVectors = kManyRegisters ? 4 : 2;
inline constexpr int kGradientRows = few_rows;

/// V vectors of columns of R rows: sums from zero, to which C is added at the end.
template <bool kTransposed, int R, int V>
HWY_INLINE void GradientTile(const MatrixProduct& p, int64_t row, int64_t column) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF sum[R][V];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) sum[r][j] = hn::Zero(d);
  }
  const float* a = kTransposed ? p.a + row : p.a + row * p.a_stride;
  const float* b = p.b + column;
  for (int64_t k = p.depth.begin; k < p.depth.end; ++k) {
    VF line[V];
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) line[j] = hn::LoadU(d, b + k * p.b_stride + j * lanes);
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      const VF x = hn::Set(d, kTransposed ? a[k * p.a_stride + r] : a[r * p.a_stride + k]);
      HWY_UNROLL(4)
      for (int j = 0; j < V; ++j) sum[r][j] = hn::MulAdd(x, line[j], sum[r][j]);
    }
  }
  float* c = p.c + row * p.c_stride + column;
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) {
      float* to = c + r * p.c_stride + j * lanes;
      hn::StoreU(p.add ? hn::Add(hn::LoadU(d, to), sum[r][j]) : sum[r][j], d, to);
    }
  }
}

/// GradientTile<., R, V> for a number of rows known at run time, 1 <= rows <= kGradientRows.
template <bool kTransposed, int V>
HWY_INLINE void GradientRows(const MatrixProduct& p, int64_t rows, int64_t row, int64_t column) {
  switch (rows) {
    case 1:
      return GradientTile<kTransposed, 1, V>(p, row, column);
    case 2:
      return GradientTile<kTransposed, 2, V>(p, row, column);
    case 3:
      return GradientTile<kTransposed, 3, V>(p, row, column);
    case 4:
      return GradientTile<kTransposed, 4, V>(p, row, column);
    case 5:
      return GradientTile<kTransposed, 5, V>(p, row, column);
    default:
      return GradientTile<kTransposed, 6, V>(p, row, column);
  }
}

template <bool kTransposed>
HWY_NOINLINE void MultiplyAs(const MatrixProduct& p) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  const int64_t step = kGradientVectors * lanes;
  const int64_t begin = p.columns.begin / lanes * lanes;
  const int64_t end = (p.columns.end + lanes - 1) / lanes * lanes;
  for (int64_t row = 0; row < p.rows; row += kGradientRows) {
    const int64_t n = p.rows - row < kGradientRows ? p.rows - row : kGradientRows;
    int64_t column = begin;
    for (; column + step <= end; column += step) {
      GradientRows<kTransposed, kGradientVectors>(p, n, row, column);
    }
    const int64_t left = (end - column) / lanes;
    if (kGradientVectors > 3 && left == 3) GradientRows<kTransposed, 3>(p, n, row, column);
    if (kGradientVectors > 2 && left == 2) GradientRows<kTransposed, 2>(p, n, row, column);
    if (left == 1) GradientRows<kTransposed, 1>(p, n, row, column);
  }
}

void Multiply(const MatrixProduct& p) { p.transposed ? MultiplyAs<true>(p) : MultiplyAs<false>(p); }

void WeighGradients(float* scores, float* dp, const uint64_t* visible, int64_t rows,
                    const float* lse, const float* delta) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < rows; ++r, scores += key_block, dp += key_block) {
    if (visible[r] == 0) {
      std::memset(scores, 0, key_block * sizeof(float));
      std::memset(dp, 0, key_block * sizeof(float));
      continue;
    }
    const VF total = hn::Set(d, lse[r]);
    const VF mean = hn::Set(d, delta[r]);
    for (int64_t i = 0; i < key_block; i += lanes) {
      const VF weight = ExpNegative(d, hn::Sub(hn::LoadU(d, scores + i), total));
      const VF gradient = hn::Mul(weight, hn::Sub(hn::LoadU(d, dp + i), mean));
      hn::StoreU(OrZero(d, visible[r], i, weight), d, scores + i);
      hn::StoreU(OrZero(d, visible[r], i, gradient), d, dp + i);
    }
  }
}

void SoftcapSlope(float* ds, const float* capped, const uint64_t* visible, int64_t rows,
                  float cap) {
  const F32 d;
  const VF inverse = hn::Set(d, 1.0f / cap);
  for (int64_t r = 0; r < rows; ++r, ds += key_block, capped += key_block) {
    for (int64_t i = 0; i < key_block; i += static_cast<int64_t>(hn::Lanes(d))) {
      const VF t = hn::Mul(inverse, hn::LoadU(d, capped + i));
      const VF slope = hn::Mul(hn::LoadU(d, ds + i), hn::NegMulAdd(t, t, hn::Set(d, 1.0f)));
      hn::StoreU(OrZero(d, visible[r], i, slope), d, ds + i);
    }
  }
}

float Dot(const float* x, const float* y, int64_t n) {
  const F32 d;
  VF sum = hn::Zero(d);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    sum = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

void PairRows(const float* x, int64_t x_stride, int64_t rows, int64_t columns, uint32_t* words) {
  const F32 d;
  const U32 u;
  for (int64_t r = 0; r < rows; r += 2, x += 2 * x_stride, words += columns) {
    const bool pair = r + 1 < rows;
    for (int64_t i = 0; i < columns; i += static_cast<int64_t>(hn::Lanes(d))) {
      const auto low = ToBf16(hn::LoadU(d, x + i));
      const auto high = pair ? ToBf16(hn::LoadU(d, x + x_stride + i)) : hn::Zero(u);
      hn::StoreU(hn::Or(low, hn::ShiftLeft<16>(high)), u, words + i);
    }
  }
}

#if HWY_TARGET == HWY_SCALAR
void Transpose(const uint32_t* x, int64_t rows, int64_t columns, uint32_t* to) {
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) to[c * rows + r] = x[r * columns + c];
  }
}
#else
/// Four by four words at a time.
void Transpose(const uint32_t* x, int64_t rows, int64_t columns, uint32_t* to) {
  const hn::FixedTag<uint32_t, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  const auto low = [&](auto a, auto b) { return hn::InterleaveLower(d64, a, b); };
  const auto high = [&](auto a, auto b) { return hn::InterleaveUpper(d64, a, b); };
  const auto as64 = [&](auto a) { return hn::BitCast(d64, a); };
  for (int64_t c = 0; c < columns; c += 4) {
    for (int64_t r = 0; r < rows; r += 4) {
      const uint32_t* from = x + r * columns + c;
      const auto x0 = hn::LoadU(d, from);
      const auto x1 = hn::LoadU(d, from + columns);
      const auto x2 = hn::LoadU(d, from + 2 * columns);
      const auto x3 = hn::LoadU(d, from + 3 * columns);
      const auto low01 = as64(hn::InterleaveLower(d, x0, x1));
      const auto low23 = as64(hn::InterleaveLower(d, x2, x3));
      const auto high01 = as64(hn::InterleaveUpper(d, x0, x1));
      const auto high23 = as64(hn::InterleaveUpper(d, x2, x3));
      uint32_t* out = to + c * rows + r;
      hn::StoreU(hn::BitCast(d, low(low01, low23)), d, out);
      hn::StoreU(hn::BitCast(d, high(low01, low23)), d, out + rows);
      hn::StoreU(hn::BitCast(d, low(high01, high23)), d, out + 2 * rows);
      hn::StoreU(hn::BitCast(d, high(high01, high23)), d, out + 3 * rows);
    }
  }
}
#endif

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
