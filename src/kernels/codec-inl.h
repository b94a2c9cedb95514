// Per-target: between f32 and the storage types. Included once per instruction set, after
// bf16-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

template <typename T>
void DecodeAs(const T* src, int64_t n, float* dst) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(LoadAsF32(d, src + i), d, dst + i);
  for (; i < n; ++i) dst[i] = OneAsF32(src + i);
}

void Decode(DType t, const void* src, int64_t n, float* dst) {
  WithElement(t, [&](auto* type) { DecodeAs(static_cast<decltype(type)>(src), n, dst); });
}

void Encode(DType t, const float* src, int64_t n, void* dst) {
  if (t == DType::f32) {
    std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  if (t == DType::bf16) {
    const hn::Rebind<uint16_t, F32> d16;
    const hn::RebindToSigned<F32> d32;
    for (; i + lanes <= n; i += lanes) {
      const auto bits = hn::BitCast(d32, ToBf16(hn::LoadU(d, src + i)));
      hn::StoreU(hn::DemoteTo(d16, bits), d16, static_cast<uint16_t*>(dst) + i);
    }
  }
#if GQA_NATIVE_F16
  if (t == DType::f16) {
    const hn::Rebind<hwy::float16_t, F32> d16;
    for (; i + lanes <= n; i += lanes) {
      hn::StoreU(hn::DemoteTo(d16, hn::LoadU(d, src + i)), d16,
                 static_cast<hwy::float16_t*>(dst) + i);
    }
  }
#endif
  for (; i < n; ++i) store_element(dst, t, i, src[i]);
}

bool AllFinite(const float* x, int64_t n) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // x * 0 is 0 for every finite x and NaN for all others; a sum keeps a NaN.
  VF sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::Add(sum, hn::Mul(hn::LoadU(d, x + i), hn::Zero(d)));
  float rest = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) rest += x[i] * 0.0f;
  return rest == 0.0f;
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
