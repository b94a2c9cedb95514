// Per-target: words of a cache as f32. Included once per instruction set, after words-inl.h.

#include "core/checked.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// Elements [E, until) of a vector of words, from `from` on; rows of dst lie `row` apart.
template <int E, class W>
HWY_INLINE void UnpackWord(const W& words, int64_t word, float* dst, int64_t row, int from,
                           int until) {
  if constexpr (E < word_elements(W::kType)) {
    const F32 d;
    if (E >= from && E < until) hn::StoreU(words.template Get<E>(d, word), d, dst + E * row);
    UnpackWord<E + 1>(words, word, dst, row, from, until);
  }
}

/// `columns` of them side by side, whole vectors: rows `depth` of the words from `word` on.
template <class W>
HWY_INLINE void UnpackColumns(const W& words, int64_t word, int64_t words_row, Range depth,
                              int64_t columns, float* dst, int64_t dst_row) {
  constexpr int kElements = static_cast<int>(word_elements(W::kType));
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  const int first = depth.begin / kElements;
  word += first * words_row;
  dst += first * kElements * dst_row;
  for (int k = first * kElements; k < depth.end; k += kElements) {
    const int from = depth.begin > k ? depth.begin - k : 0;
    const int until = depth.end - k < kElements ? depth.end - k : kElements;
    for (int64_t c = 0; c < columns; c += lanes) {
      UnpackWord<0>(words, word + c, dst + c, dst_row, from, until);
    }
    word += words_row;
    dst += kElements * dst_row;
  }
}

void Unpack(KvDType t, const void* words, const WordOrder& order, Range depth, int64_t columns,
            const WordOrder& to, float* dst) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  const int64_t whole = columns / lanes * lanes;
  const bool panels = order.row == panel_columns || to.row == panel_columns;
  const int64_t together = panels ? panel_columns : whole;
  WithWords(t, words, [&](const auto& typed) HWY_ATTR {
    for (int64_t c = 0; c < whole; c += together) {
      const int64_t n = whole - c < together ? whole - c : together;
      UnpackColumns(typed, order.at(0, c), order.row, depth, n, dst + to.at(0, c), to.row);
    }
  });
  const int64_t padded = round_up(columns, row_padding);
  for (int64_t k = depth.begin; k < depth.end; ++k) {
    for (int64_t c = whole; c < padded; ++c) {
      dst[to.at(k, c)] = c < columns ? load_packed(t, words, order, k, c) : 0.0f;
    }
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
