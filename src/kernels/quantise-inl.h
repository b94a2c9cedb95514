// Per-target: from f32 to small integers. Included once per instruction set, after codec-inl.h.

#include <algorithm>
#include <cmath>
#include <limits>

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

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
