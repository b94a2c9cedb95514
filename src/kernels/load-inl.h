// Per-target: vectors and single elements of the storage types as f32. Included first of all, once
// per instruction set and file.

#include <cstdint>
#include <cstring>

#include "core/half.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using VF = hn::Vec<F32>;

// Highway's emulation of binary16 leaves infinities, NaN and rounding undefined, so it is used only
// where the machine does it.
#undef GQA_NATIVE_F16
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)) || \
    (HWY_ARCH_ARM_A64 && HWY_TARGET == HWY_NEON)
#define GQA_NATIVE_F16 1
#else
#define GQA_NATIVE_F16 0
#endif

/// 32 vector registers, not 16: what register tiles are cut for.
inline constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64;
/// A multiply-add rounds once: its product is exact.
inline constexpr bool kFusedMultiplyAdd =
    (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2) || (HWY_ARCH_ARM_A64 && HWY_TARGET == HWY_NEON);

HWY_INLINE VF LoadAsF32(F32 d, const float* p) { return hn::LoadU(d, p); }

/// Tag types for 16-bit elements in memory.
struct F16 {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

HWY_INLINE VF LoadAsF32(F32 d, const F16* p) {
#if GQA_NATIVE_F16
  const hn::Rebind<hwy::float16_t, F32> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
#else
  const hn::Rebind<uint16_t, F32> d16;
  const hn::Rebind<uint32_t, F32> d32;
  const auto h = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  const auto sign = hn::ShiftLeft<16>(hn::And(h, hn::Set(d32, 0x8000u)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(h, hn::Set(d32, 0x7fffu)));
  // Scaling by 2^112 moves the exponent's bias; it also makes subnormals normal, exactly.
  const auto scaled = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f));
  const auto special = hn::Ge(hn::BitCast(d, magnitude), hn::BitCast(d, hn::Set(d32, 31u << 23)));
  const auto infinite =
      hn::Or(hn::BitCast(d, magnitude), hn::BitCast(d, hn::Set(d32, 0x7f800000u)));
  return hn::Or(hn::IfThenElse(special, infinite, scaled), hn::BitCast(d, sign));
#endif
}

HWY_INLINE VF LoadAsF32(F32 d, const Bf16* p) {
  const hn::Rebind<uint16_t, F32> d16;
  const hn::Rebind<uint32_t, F32> d32;
  const auto h = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(d, hn::ShiftLeft<16>(h));
}

HWY_INLINE VF LoadAsF32(F32 d, const int8_t* p) {
  const hn::Rebind<int8_t, F32> d8;
  const hn::RebindToSigned<F32> d32;
  return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, p)));
}

inline float OneAsF32(const float* p) { return load_element(p, DType::f32, 0); }
inline float OneAsF32(const F16* p) { return load_element(p, DType::f16, 0); }
inline float OneAsF32(const Bf16* p) { return load_element(p, DType::bf16, 0); }
inline float OneAsF32(const int8_t* p) { return static_cast<float>(*p); }

/// Calls f with a null pointer of the element type that t means.
template <typename F>
HWY_INLINE void WithElement(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      f(static_cast<const float*>(nullptr));
      break;
    case DType::f16:
      f(static_cast<const F16*>(nullptr));
      break;
    case DType::bf16:
      f(static_cast<const Bf16*>(nullptr));
      break;
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
