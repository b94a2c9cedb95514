// Per-target: vectors of f32 as bf16. Included once per instruction set, after load-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

using U32 = hn::RebindToUnsigned<F32>;

/// The bits of x as bf16, as f32_to_bf16() has them: to nearest even; NaN stays NaN.
HWY_INLINE hn::Vec<U32> ToBf16(VF x) {
  const U32 d;
  const auto bits = hn::BitCast(d, x);
  const auto half = hn::Add(hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u)), hn::Set(d, 0x7fffu));
  const auto quiet = hn::Or(bits, hn::Set(d, 0x00400000u));
  const auto is_nan = hn::RebindMask(d, hn::IsNaN(x));
  return hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, hn::Add(bits, half)));
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
