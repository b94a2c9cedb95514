// Per-target: attention over one block of keys. Included once per instruction set, after
// weights-inl.h.

#include "hwy/contrib/math/math-inl.h"
#include "kernels/ahead.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

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

void ScaleKeys(float* x, const uint64_t* visible, int64_t rows, const float* scales) {
  const F32 d;
  for (int64_t r = 0; r < rows; ++r, x += key_block) {
    for (int64_t i = 0; i < key_block; i += static_cast<int64_t>(hn::Lanes(d))) {
      const VF scaled = hn::Mul(hn::LoadU(d, scales + i), hn::LoadU(d, x + i));
      hn::StoreU(OrZero(d, visible[r], i, scaled), d, x + i);
    }
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
             int64_t v_stride, Ahead next) {
  AheadLines ahead(next, 2 * rows);
  // All maxima before all exponentials: the processor then works on several rows at a time, which
  // a row's way from the one to the other is too long for.
  for (int64_t r = 0; r < rows; ++r) {
    ahead.step();
    if (visible[r] == 0) continue;
    const float max = MaskAndMax(scores + r * key_block, visible[r]);
    RaiseMax(max, states[r], acc + r * v_stride, v_stride);
  }
  for (int64_t r = 0; r < rows; ++r) {
    ahead.step();
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
