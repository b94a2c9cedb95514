// Per-target: between f32 and rows of small integers (core/int_row.h). Included once per
// instruction set, after codec-inl.h.

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/int_row.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

float Quantise(const float* x, int64_t n, int32_t largest, int8_t* q) {
  using Limits = std::numeric_limits<float>;
  const F32 d;
  const hn::Rebind<int8_t, F32> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  std::fill(q, q + n, int8_t{0});
  if (!AllFinite(x, n)) return Limits::quiet_NaN();
  VF most = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) most = hn::Max(most, hn::Abs(hn::LoadU(d, x + i)));
  float magnitude = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < n; ++i) magnitude = std::max(magnitude, std::abs(x[i]));
  // The largest f32 over 127, rounded up, would come back as infinity: the next one does not.
  const float scale = std::min(magnitude, 0x1.fffffcp127f) / static_cast<float>(largest);
  if (scale < Limits::min()) return 0.0f;
  const VF divisor = hn::Set(d, scale);
  for (i = 0; i + lanes <= n; i += lanes) {
    const auto nearest = hn::NearestInt(hn::Div(hn::LoadU(d, x + i), divisor));
    hn::StoreU(hn::DemoteTo(d8, nearest), d8, q + i);
  }
  for (; i < n; ++i) q[i] = static_cast<int8_t>(std::lrint(x[i] / scale));
  return scale;
}

/// One scale for a whole row.
struct OneScale {
  float scale;
  HWY_INLINE VF Vector(F32 d, int64_t) const { return hn::Set(d, scale); }
  HWY_INLINE float Element(int64_t) const { return scale; }
};

/// A scale for each element of a row.
struct ScalePerElement {
  const float* scales;
  HWY_INLINE VF Vector(F32 d, int64_t i) const { return hn::LoadU(d, scales + i); }
  HWY_INLINE float Element(int64_t i) const { return scales[i]; }
};

/// dst [n] = scale * integer.
template <typename Scale>
HWY_INLINE void DequantiseInt8(const int8_t* row, int64_t n, const Scale& scale, float* dst) {
  const F32 d;
  const hn::Rebind<int8_t, F32> d8;
  const hn::RebindToSigned<F32> d32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VF q = hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, row + i)));
    hn::StoreU(hn::Mul(scale.Vector(d, i), q), d, dst + i);
  }
  for (; i < n; ++i) dst[i] = scale.Element(i) * static_cast<float>(row[i]);
}

inline float OneInt4(const int8_t* row, int64_t n, int64_t i) {
  return static_cast<float>(load_int(KvDType::int4, row, n, i));
}

template <typename Scale>
HWY_INLINE void DequantiseInt4(const int8_t* row, int64_t n, const Scale& scale, float* dst) {
  const F32 d;
  const hn::Rebind<int8_t, F32> d8;
  const hn::RebindToSigned<F32> d32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t half = int_row_bytes(KvDType::int4, n);
  int64_t i = 0;
  for (; i + lanes <= n - half; i += lanes) {
    const auto both = hn::PromoteTo(d32, hn::LoadU(d8, row + i));
    const VF low = hn::ConvertTo(d, hn::ShiftRight<28>(hn::ShiftLeft<28>(both)));
    const VF high = hn::ConvertTo(d, hn::ShiftRight<4>(both));
    hn::StoreU(hn::Mul(scale.Vector(d, i), low), d, dst + i);
    hn::StoreU(hn::Mul(scale.Vector(d, half + i), high), d, dst + half + i);
  }
  for (int64_t e = i; e < half; ++e) dst[e] = scale.Element(e) * OneInt4(row, n, e);
  for (int64_t e = half + i; e < n; ++e) dst[e] = scale.Element(e) * OneInt4(row, n, e);
}

template <typename Scale>
HWY_INLINE void DequantiseRowAs(KvDType t, const void* row, int64_t n, const Scale& scale,
                                float* dst) {
  const auto* integers = static_cast<const int8_t*>(row);
  if (t == KvDType::int8) {
    DequantiseInt8(integers, n, scale, dst);
  } else {
    DequantiseInt4(integers, n, scale, dst);
  }
}

void DequantiseRow(KvDType t, const void* row, int64_t n, float scale, float* dst) {
  DequantiseRowAs(t, row, n, OneScale{scale}, dst);
}

void DequantiseColumns(KvDType t, const void* rows, int64_t depth, const float* scales,
                       float* dst) {
  const auto* row = static_cast<const int8_t*>(rows);
  for (int64_t k = 0; k < depth; ++k, row += int_row_bytes(t, key_block), dst += key_block) {
    DequantiseRowAs(t, row, key_block, ScalePerElement{scales}, dst);
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
