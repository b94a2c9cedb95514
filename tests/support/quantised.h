// What a quantised cache makes of numbers, as include/gqa/kv_cache.h says it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "gqa/dtype.h"

namespace gqa::test {

inline float largest_integer(KvDType t) { return t == KvDType::int8 ? 127.0f : 7.0f; }

/// The scale of one vector.
inline float scale_of(KvDType t, std::span<const float> x) {
  float most = 0;
  for (const float v : x) {
    if (!std::isfinite(v)) return std::numeric_limits<float>::quiet_NaN();
    most = std::max(most, std::abs(v));
  }
  const float scale = most / largest_integer(t);
  return scale < std::numeric_limits<float>::min() ? 0.0f : scale;
}

/// One vector becomes what is read back; f32 stays.
inline void quantise(KvDType t, std::span<float> x) {
  if (t == KvDType::f32) return;
  const float scale = scale_of(t, x);
  for (float& v : x) v = scale == 0 ? 0.0f : scale * std::nearbyint(v / scale);
}

}  // namespace gqa::test
