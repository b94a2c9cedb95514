// Per-target: words of a cache as rows of f32. Included once per instruction set, after
// words-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// One vector of columns at a time.
template <int E, class W>
HWY_INLINE void UnpackWord(const W& words, int64_t word, float* dst, int64_t stride, int from,
                           int until) {
  if constexpr (E < word_elements(W::kType)) {
    const F32 d;
    if (E >= from && E < until) hn::StoreU(words.template Get<E>(d, word), d, dst + E * stride);
    UnpackWord<E + 1>(words, word, dst, stride, from, until);
  }
}

void Unpack(KvDType t, const void* words, const WordOrder& order, Range depth, int64_t columns,
            int64_t stride, float* dst) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  const int64_t whole = columns / lanes * lanes;
  WithWords(t, words, [&](const auto& typed) HWY_ATTR {
    constexpr int kElements =
        static_cast<int>(word_elements(std::remove_cvref_t<decltype(typed)>::kType));
    for (int k = depth.begin / kElements * kElements; k < depth.end; k += kElements) {
      const int from = depth.begin > k ? depth.begin - k : 0;
      const int until = depth.end - k < kElements ? depth.end - k : kElements;
      for (int64_t c = 0; c < whole; c += lanes) {
        UnpackWord<0>(typed, order.at(k / kElements, c), dst + k * stride + c, stride, from, until);
      }
    }
  });
  for (int64_t k = depth.begin; k < depth.end; ++k) {
    float* row = dst + k * stride;
    for (int64_t c = whole; c < columns; ++c) row[c] = load_packed(t, words, order, k, c);
    for (int64_t c = columns; c < stride; ++c) row[c] = 0.0f;
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
