// Per-target: what the words of a cache hold (core/kv_words.h), as vectors. Included once per
// instruction set, after load-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// Types of words: how many elements, and element E of each of a vector of words as f32.

struct F32Words {
  static constexpr KvDType kType = KvDType::f32;
  const float* words;
  template <int E>
  HWY_INLINE VF Get(F32 d, int64_t word) const {
    return hn::LoadU(d, words + word);
  }
};

struct F16Words {
  static constexpr KvDType kType = KvDType::f16;
  const F16* words;
  template <int E>
  HWY_INLINE VF Get(F32 d, int64_t word) const {
    return LoadAsF32(d, words + word);
  }
};

struct Bf16Words {
  static constexpr KvDType kType = KvDType::bf16;
  const uint32_t* words;
  template <int E>
  HWY_INLINE VF Get(F32 d, int64_t word) const {
    const hn::RebindToUnsigned<F32> du;
    const auto both = hn::LoadU(du, words + word);
    if constexpr (E == 0) return hn::BitCast(d, hn::ShiftLeft<16>(both));
    return hn::BitCast(d, hn::And(both, hn::Set(du, 0xffff0000u)));
  }
};

struct Int8Words {
  static constexpr KvDType kType = KvDType::int8;
  const int32_t* words;
  template <int E>
  HWY_INLINE VF Get(F32 d, int64_t word) const {
    const hn::RebindToSigned<F32> di;
    const auto all = hn::LoadU(di, words + word);
    return hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<24 - 8 * E>(all)));
  }
};

struct Int4Words {
  static constexpr KvDType kType = KvDType::int4;
  const int32_t* words;
  template <int E>
  HWY_INLINE VF Get(F32 d, int64_t word) const {
    constexpr int kLeft = E < 4 ? 28 - 8 * E : 24 - 8 * (E - 4);
    const hn::RebindToSigned<F32> di;
    const auto all = hn::LoadU(di, words + word);
    return hn::ConvertTo(d, hn::ShiftRight<28>(hn::ShiftLeft<kLeft>(all)));
  }
};

/// Calls f with the words at p as their type.
template <typename F>
HWY_INLINE void WithWords(KvDType t, const void* p, F&& f) {
  switch (t) {
    case KvDType::f32:
      return f(F32Words{static_cast<const float*>(p)});
    case KvDType::f16:
      return f(F16Words{static_cast<const F16*>(p)});
    case KvDType::bf16:
      return f(Bf16Words{static_cast<const uint32_t*>(p)});
    case KvDType::int8:
      return f(Int8Words{static_cast<const int32_t*>(p)});
    case KvDType::int4:
      return f(Int4Words{static_cast<const int32_t*>(p)});
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
