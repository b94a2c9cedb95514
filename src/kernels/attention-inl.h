// Per-target: attention over one block of keys. Included once per instruction set, after
// weights-inl.h.

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

/// tanh(x) = |x| P(x^2) / Q(x^2) with the sign of x, P and Q of degree 4, fitted for the least
/// maximal relative error up to 9.01; beyond, it is 1. With its roundings that is below 6 u, u =
/// 2^-24 (tested against double), at most 1, and NaN stays. About half the instructions of
/// Highway's, which takes an exponential.
HWY_INLINE VF Tanh(F32 d, VF x) {
  const VF size = hn::Abs(x);
  const VF z = hn::Mul(x, x);
  VF p = hn::MulAdd(z, hn::Set(d, 1.3336856064e-8f), hn::Set(d, 2.0596278773e-5f));
  VF q = hn::MulAdd(z, hn::Set(d, 7.7692857303e-7f), hn::Set(d, 3.2843637746e-4f));
  p = hn::MulAdd(z, p, hn::Set(d, 3.4948112443e-3f));
  q = hn::MulAdd(z, q, hn::Set(d, 2.5874027982e-2f));
  p = hn::MulAdd(z, p, hn::Set(d, 0.13380372524f));
  q = hn::MulAdd(z, q, hn::Set(d, 0.46713688f));
  const VF one = hn::Set(d, 1.0f);
  p = hn::MulAdd(z, p, one);
  q = hn::MulAdd(z, q, one);
  const VF ratio = hn::Div(hn::Mul(size, p), q);
  const auto full = hn::Or(hn::Gt(size, hn::Set(d, 9.01f)), hn::Gt(ratio, one));
  return hn::CopySignToAbs(hn::IfThenElse(full, one, ratio), x);
}

void Softcap(float* x, int64_t n, float cap) {
  const F32 d;
  const VF c = hn::Set(d, cap);
  const VF inverse = hn::Set(d, 1.0f / cap);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Mul(c, Tanh(d, hn::Mul(inverse, hn::LoadU(d, x + i)))), d, x + i);
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

int64_t StretchOf(KvDType) { return 1; }
bool ScalesLate(KvDType) { return false; }

void ScaleKeys(float* x, int64_t x_row, const uint64_t* visible, int64_t rows,
               const float* scales) {
  const F32 d;
  for (int64_t r = 0; r < rows; ++r, x += x_row) {
    const bool all = visible[r] == ~uint64_t{0};
    for (int64_t i = 0; i < key_block; i += static_cast<int64_t>(hn::Lanes(d))) {
      const VF scaled = hn::Mul(hn::LoadU(d, scales + i), hn::LoadU(d, x + i));
      hn::StoreU(all ? scaled : OrZero(d, visible[r], i, scaled), d, x + i);
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

/// Scores whose bit is not set become -inf; returns the largest of them and of `largest`, lane by
/// lane.
HWY_INLINE VF MaskAndMax(float* scores, uint64_t visible, VF largest) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (visible == ~uint64_t{0}) {
    for (int64_t i = 0; i < key_block; i += lanes) {
      largest = hn::Max(largest, hn::LoadU(d, scores + i));
    }
    return largest;
  }
  const VF masked = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < key_block; i += lanes) {
    const uint64_t bits = visible >> i;
    uint8_t bytes[8];
    std::memcpy(bytes, &bits, sizeof bits);
    const VF x = hn::IfThenElse(hn::LoadMaskBits(d, bytes), hn::LoadU(d, scores + i), masked);
    hn::StoreU(x, d, scores + i);
    largest = hn::Max(largest, x);
  }
  return largest;
}

/// Brings a row's state and accumulator up to a new maximum, if it is one.
HWY_INLINE void RaiseMax(float max, RowState& state, float* acc, int64_t v_stride) {
  if (!(max > state.max)) return;
  const float factor = std::exp(state.max - max);
  state.sum *= factor;
  ScaleRow(factor, acc, v_stride);
  state.max = max;
}

/// Scores become weights, which are added to sum, lane by lane.
HWY_INLINE VF Weigh(float* scores, VF offset, VF sum) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < key_block; i += lanes) {
    const VF weight = ExpNegative(d, hn::Sub(hn::LoadU(d, scores + i), offset));
    hn::StoreU(weight, d, scores + i);
    sum = hn::Add(sum, weight);
  }
  return sum;
}

/// visible: of a row and the first block.
HWY_INLINE bool SeesNothing(const uint64_t* visible, int64_t blocks, int64_t rows) {
  uint64_t any = 0;
  for (int64_t b = 0; b < blocks; ++b) any |= visible[b * rows];
  return any == 0;
}

/// Of kBlocks blocks, or so many as are given.
template <int64_t kBlocks>
HWY_NOINLINE void SoftmaxOf(float* scores, int64_t scores_row, const uint64_t* visible,
                            int64_t given, int64_t rows, RowState* states, float* acc,
                            int64_t v_stride, const Ahead& next) {
  const int64_t blocks = kBlocks == 0 ? given : kBlocks;
  const F32 d;
  const float none = -std::numeric_limits<float>::infinity();
  AheadLines ahead(next, 2 * rows);
  // All maxima before all exponentials: the processor then works on several rows at a time, which
  // a row's way from the one to the other is too long for.
  for (int64_t r = 0; r < rows; ++r) {
    ahead.step();
    if (SeesNothing(visible + r, blocks, rows)) continue;
    VF largest = hn::Set(d, none);
    for (int64_t b = 0; b < blocks; ++b) {
      const uint64_t seen = visible[b * rows + r];
      if (seen != 0) largest = MaskAndMax(scores + r * scores_row + b * key_block, seen, largest);
    }
    RaiseMax(hn::GetLane(hn::MaxOfLanes(d, largest)), states[r], acc + r * v_stride, v_stride);
  }
  for (int64_t r = 0; r < rows; ++r) {
    ahead.step();
    // Nothing seen yet: subtracting 0 leaves the scores at -inf and their weights at 0.
    const float max = states[r].max;
    const VF offset = hn::Set(d, max == none ? 0.0f : max);
    VF sum = hn::Zero(d);
    for (int64_t b = 0; b < blocks; ++b) {
      float* row = scores + r * scores_row + b * key_block;
      if (visible[b * rows + r] != 0) {
        sum = Weigh(row, offset, sum);
      } else {
        std::memset(row, 0, key_block * sizeof(float));
      }
    }
    if (!SeesNothing(visible + r, blocks, rows)) {
      states[r].sum += hn::GetLane(hn::SumOfLanes(d, sum));
    }
  }
}

void Softmax(KvDType, float* scores, int64_t scores_row, const uint64_t* visible, int64_t blocks,
             int64_t rows, float, RowState* states, float* acc, int64_t v_stride,
             const Ahead& next) {
  const auto body = blocks == 1 ? SoftmaxOf<1> : SoftmaxOf<0>;
  body(scores, scores_row, visible, blocks, rows, states, acc, v_stride, next);
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
