// Per-target: rows of numbers, and words of a cache, as integers of 16 bits. Included once per
// instruction set, after load-inl.h.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "core/checked.h"
#include "kernels/integer_scale.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

using I32 = hn::RebindToSigned<F32>;
using VI = hn::Vec<I32>;
using I16 = hn::Repartition<int16_t, I32>;
using VS = hn::Vec<I16>;

// A row in memory: the step of its integers in a cache line of its own, then the integers, zeros
// behind the last one up to a cache line. Of each four the second and the third change places:
// bytes of a word that lie two apart become pairs of 16 bits by one shift or two.

inline constexpr int64_t kLine = 64;
inline constexpr int32_t kLargest = INT16_MAX;
constexpr int64_t RowBytes(int64_t n) { return kLine + round_up(2 * n, kLine); }

HWY_INLINE float StepOf(const std::byte* row) {
  float step;
  std::memcpy(&step, row, sizeof step);
  return step;
}
HWY_INLINE const std::byte* Integers(const std::byte* row) { return row + kLine; }

/// The largest magnitude of x [n]. As integers a NaN is larger than all numbers.
HWY_INLINE float LargestMagnitude(const float* x, int64_t n) {
  const I32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VI magnitude = hn::Set(d, 0x7fffffff);
  VI most = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    most = hn::Max(most, hn::And(magnitude, hn::BitCast(d, hn::LoadU(F32(), x + i))));
  }
  int32_t largest = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < n; ++i) largest = std::max(largest, std::bit_cast<int32_t>(x[i]) & 0x7fffffff);
  return std::bit_cast<float>(largest);
}

/// Lanes that bring words of two vectors, a pair of words of each in turns, one behind the other.
struct InTurns {
  static constexpr int kLanes = hn::MaxLanes(I32());
  int32_t lanes[kLanes] = {};
  constexpr InTurns() {
    for (int i = 0; i < kLanes; ++i) {
      const int of_one = i % (kLanes / 2);
      lanes[i] = of_one / 2 * 4 + (i < kLanes / 2 ? 0 : 2) + i % 2;
    }
  }
};

/// Integers of 2 vectors' elements from `from` on, in a row's order. Adding 1.5 * 2^23 rounds to an
/// integer and leaves it in the low bits.
HWY_INLINE void StoreIntegers(const float* from, VF inverse, int16_t* to) {
  const F32 df;
  const I32 d;
  const I16 d16;
  const hn::Repartition<uint64_t, I32> d64;
  alignas(64) static constexpr InTurns in_turns;
  const auto integers = [&](const float* x) HWY_ATTR {
    return hn::BitCast(d64, hn::MulAdd(inverse, hn::LoadU(df, x), hn::Set(df, 12582912.0f)));
  };
  const auto first = integers(from);
  const auto second = integers(from + hn::Lanes(d));
  // Of each four the first two, and what they are paired with.
  const VS low = hn::BitCast(d16, hn::InterleaveLower(d64, first, second));
  const VI high = hn::BitCast(d, hn::InterleaveUpper(d64, first, second));
  const VS pairs = hn::OddEven(hn::BitCast(d16, hn::ShiftLeft<16>(high)), low);
  const VI ordered =
      hn::TableLookupLanes(hn::BitCast(d, pairs), hn::SetTableIndices(d, in_turns.lanes));
  hn::StoreU(ordered, d, reinterpret_cast<int32_t*>(to));
}

/// to [RowBytes(n)] = scale * x [n] in integers; largest: their largest magnitude.
HWY_INLINE void ToIntegers(const float* x, int64_t n, float largest, float scale, std::byte* to) {
  const float step = integer_scale(largest, kLargest);
  const float scaled_step = scale * step;
  std::memcpy(to, &scaled_step, sizeof scaled_step);
  auto* integers = reinterpret_cast<int16_t*>(to + kLine);
  if (!(step > 0)) {
    std::memset(integers, 0, static_cast<size_t>(RowBytes(n) - kLine));
    return;
  }
  const F32 d;
  constexpr int64_t kAtOnce = kLine / 2;
  const int64_t both = 2 * static_cast<int64_t>(hn::Lanes(d));
  const VF inverse = hn::Set(d, static_cast<float>(kLargest) / largest);
  const int64_t whole_lines = n / kAtOnce * kAtOnce;
  for (int64_t i = 0; i < whole_lines; i += both) StoreIntegers(x + i, inverse, integers + i);
  if (whole_lines == n) return;
  float last[kAtOnce] = {};
  std::copy(x + whole_lines, x + n, last);
  for (int64_t i = 0; i < kAtOnce; i += both) {
    StoreIntegers(last + i, inverse, integers + whole_lines + i);
  }
}

/// Words of integers of 4 bits or 8, as pairs of 16 bits: those of a row in the same order.
template <KvDType t>
struct Pairs;

template <>
struct Pairs<KvDType::int8> {
  static constexpr int kPairs = 2;
  template <int kPair>
  static HWY_INLINE VS Get(VS word) {
    return hn::ShiftRight<8>(kPair == 0 ? hn::ShiftLeft<8>(word) : word);
  }
};

template <>
struct Pairs<KvDType::int4> {
  static constexpr int kPairs = 4;
  template <int kPair>
  static HWY_INLINE VS Get(VS word) {
    constexpr int kLeft[] = {12, 4, 8, 0};
    return hn::ShiftRight<12>(hn::ShiftLeft<kLeft[kPair]>(word));
  }
};

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
