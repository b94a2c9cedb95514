// Per-target: from scores to weights, for keys that are seen. Included once per instruction set and
// file, after load-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

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

/// Lanes [i, i + lanes) of a row whose bits are set; all others are 0.
HWY_INLINE VF OrZero(F32 d, uint64_t visible, int64_t i, VF x) {
  const uint64_t bits = visible >> i;
  uint8_t bytes[8];
  std::memcpy(bytes, &bits, sizeof bits);
  return hn::IfThenElseZero(hn::LoadMaskBits(d, bytes), x);
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
