// Per-target: from scores to weights, for keys that are seen. Included once per instruction set and
// file, after load-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// exp(x) for x <= 0; exactly 0 below -87.3 (where exp leaves the normal range) and for -inf; NaN
/// stays. exp(x) = 2^n exp(r), r = x - n ln 2, |r| <= ln(2) / 2, exp(r) by a polynomial of degree 5
/// fitted for the least maximal relative error, 2^-23.3. With its roundings that is below 4 u, u =
/// 2^-24; ln 2 is rounded, too, which adds |x| u / 16 (tested against double). Adding 1.5 * 2^23 +
/// 127 rounds to an integer and leaves it, biased as exponents are, in the low bits, so that no
/// conversion is needed; what lies below -87.3 becomes nonsense on the way and 0 at the end.
HWY_INLINE VF ExpNegative(F32 d, VF x) {
  const hn::RebindToSigned<F32> di;
  const VF shift = hn::Set(d, 12582912.0f + 127.0f);
  const VF shifted = hn::MulAdd(x, hn::Set(d, 1.44269504088896341f), shift);
  const VF n = hn::Sub(shifted, shift);
  VF r;
  if constexpr (kFusedMultiplyAdd) {
    r = hn::NegMulAdd(n, hn::Set(d, 0.693147182464599609f), x);
  } else {  // in two parts: products with the first one are exact
    r = hn::Sub(x, hn::Mul(n, hn::Set(d, 0.693359375f)));
    r = hn::Sub(r, hn::Mul(n, hn::Set(d, -2.12194440054690583e-4f)));
  }
  VF p = hn::MulAdd(r, hn::Set(d, 0.008290272206068039f), hn::Set(d, 0.04189816117286682f));
  p = hn::MulAdd(r, p, hn::Set(d, 0.1666763871908188f));
  p = hn::MulAdd(r, p, hn::Set(d, 0.4999914765357971f));
  p = hn::MulAdd(r, p, hn::Set(d, 0.9999997019767761f));
  p = hn::MulAdd(r, p, hn::Set(d, 1.0f));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
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
