// Per-target: register tiles of products of f32 rows and words that are decoded in registers.
// Included once per instruction set, after load-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// Rows of a register tile, at most.
inline constexpr int kRows = few_rows;

/// Words from the first vector of columns of a tile, at the beginning of a panel, to the others.
/// Three of them may begin in its middle, if two are a panel. Vectors that are whole panels have
/// words in rows.
template <int V>
class VectorsAt {
 public:
  VectorsAt(const WordOrder& order, int64_t column)
      : panel_(order.panel), second_(column % panel_columns == 0 ? kLanes : order.panel - kLanes) {}

  HWY_INLINE int64_t operator[](int j) const {
    if constexpr (kLanes == panel_columns) return j * kLanes;
    if (V == 3 && j == 1) return second_;
    return j * kLanes / panel_columns * panel_ + j * kLanes % panel_columns;
  }

 private:
  static constexpr int64_t kLanes = hn::MaxLanes(F32());
  static_assert(V != 3 || kLanes >= panel_columns / 2);
  int64_t panel_, second_;
};

/// Elements [E, until) of the words at `word`, V vectors of them, times those of R rows.
template <int E, int R, int V, class W>
HWY_INLINE void TileStep(const float* a, int64_t a_row, int from, int until, const W& b,
                         const VectorsAt<V>& at, int64_t word, VF (&sum)[R][V]) {
  if constexpr (E < word_elements(W::kType)) {
    if (E >= from && E < until) {
      const F32 d;
      VF column[V];
      HWY_UNROLL(8)
      for (int j = 0; j < V; ++j) column[j] = b.template Get<E>(d, word + at[j]);
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) {
        const VF x = hn::Set(d, a[r * a_row + E]);
        HWY_UNROLL(8)
        for (int j = 0; j < V; ++j) sum[r][j] = hn::MulAdd(x, column[j], sum[r][j]);
      }
    }
    TileStep<E + 1>(a, a_row, from, until, b, at, word, sum);
  }
}

/// Where a product's operands lie: C [rows][.] (+)= A [rows][depth] * B [depth][.], elements
/// [depth.begin, depth.end) of it.
struct Layout {
  int64_t a_row;    ///< from one row of A to the next
  WordOrder order;  ///< of B
  Range depth;
  float* c;
  int64_t c_row;
  bool add;
};

/// A step of a product with V vectors of columns that also asks for memory: the fewest words that
/// are whole lines. Processors that are asked for many lines at once keep loads waiting, and a pass
/// that asks faster than it reads lets memory rest at its end.
template <int V, class W>
struct AskingStep {
  static constexpr int64_t kRead =
      V * static_cast<int64_t>(hn::MaxLanes(F32())) * word_bytes(W::kType);
  static constexpr int kWords = static_cast<int>(ahead_line / std::gcd(kRead, ahead_line));
  static constexpr int64_t kBytes = kRead * kWords;

  static HWY_INLINE void Ask(const char* next, const AheadSteps& ahead) {
    // Only tables of machines with most registers want that; the others save the look.
    const bool second_level = kManyRegisters && ahead.second_level();
    AheadSteps::ask(next, kBytes, second_level);
  }
};

/// Part of a word: elements [from, until) of those at row `word` of B, times rows of A. What else
/// the word holds may be NaN, which no weight of 0 takes out. Seldom wanted, so one vector at a
/// time and apart from tiles, which would take twice as long to compile with it. A chain of
/// multiply-adds may rest in memory between two of its steps: its bits stay.
template <class W>
HWY_NOINLINE void PartOfWord(const float* a, int64_t rows, const W& b, const Layout& l,
                             int64_t word, int from, int until, int64_t column, int64_t vectors,
                             bool add, float* c) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t j = 0; j < vectors; ++j, column += lanes, c += lanes) {
    const VectorsAt<1> at(l.order, column);
    for (int64_t r = 0; r < rows; ++r) {
      VF sum[1][1] = {{add ? hn::LoadU(d, c + r * l.c_row) : hn::Zero(d)}};
      TileStep<0>(a + r * l.a_row, l.a_row, from, until, b, at, l.order.at(word, column), sum);
      hn::StoreU(sum[0][0], d, c + r * l.c_row);
    }
  }
}

/// V vectors of columns of R rows of a product; B is decoded in registers.
template <int R, int V, class W>
HWY_INLINE void ProductTile(const float* a, const W& b, const Layout& l, int64_t column, float* c,
                            AheadSteps& ahead) {
  constexpr int kElements = static_cast<int>(word_elements(W::kType));
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VectorsAt<V> at(l.order, column);
  int k = l.depth.begin;
  bool add = l.add;
  if (kElements > 1 && k % kElements != 0) {
    const int word = k / kElements;
    const int end = l.depth.end - word * kElements;
    PartOfWord(a + word * kElements, R, b, l, word, k % kElements, end, column, V, add, c);
    k = (word + 1) * kElements;
    add = true;
  }
  VF sum[R][V];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int j = 0; j < V; ++j) {
      sum[r][j] = add ? hn::LoadU(d, c + r * l.c_row + j * lanes) : hn::Zero(d);
    }
  }
  const float* x = a + k;
  int64_t word = l.order.at(k / kElements, column);
  ahead.begin_pass();
  using Step = AskingStep<V, W>;
  constexpr int kStep = Step::kWords * kElements;
  while (const int64_t n = ahead.steps(Step::kBytes, (l.depth.end - k) / kStep)) {
    const char* next = ahead.next();
    for (int64_t i = 0; i < n; ++i, next += Step::kBytes) {
      Step::Ask(next, ahead);
      HWY_UNROLL(8)
      for (int w = 0; w < Step::kWords; ++w) {
        TileStep<0>(x, l.a_row, 0, kElements, b, at, word, sum);
        x += kElements;
        word += l.order.row;
      }
    }
    ahead.skip(n * Step::kBytes);
    k += static_cast<int>(n) * kStep;
  }
  for (; k + kElements <= l.depth.end; k += kElements) {
    TileStep<0>(x, l.a_row, 0, kElements, b, at, word, sum);
    x += kElements;
    word += l.order.row;
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int j = 0; j < V; ++j) hn::StoreU(sum[r][j], d, c + r * l.c_row + j * lanes);
  }
  if (kElements > 1 && k < l.depth.end) {
    PartOfWord(a + k, R, b, l, k / kElements, 0, l.depth.end - k, column, V, true, c);
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
