// Products of f32 rows and blocks of keys or values, which are decoded in registers
// (core/kv_words.h). In a file of their own since they take long to compile.
#include <numeric>

#include "core/checked.h"
#include "core/kv_words.h"
#include "kernels/ahead.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/product.cpp"
#include "kernels/targets.h"
//
#include "hwy/foreach_target.h"
// These come after foreach_target.h and in this order.
#include "kernels/load-inl.h"
//
#include "kernels/product-inl.h"
#include "kernels/words-inl.h"

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

/// V vectors of columns of R rows of a product; B is decoded in registers.
template <int R, int V, class W>
HWY_INLINE void ProductTile(const float* a, const W& b, const Layout& l, int64_t column, float* c,
                            AheadSteps& ahead) {
  constexpr int kElements = static_cast<int>(word_elements(W::kType));
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VectorsAt<V> at(l.order, column);
  VF sum[R][V];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int j = 0; j < V; ++j) {
      sum[r][j] = l.add ? hn::LoadU(d, c + r * l.c_row + j * lanes) : hn::Zero(d);
    }
  }
  int k = l.depth.begin;
  // Words that are used in part: what else they hold may be NaN, which no weight of 0 takes out.
  if (kElements > 1 && k % kElements != 0) {
    const int word = k / kElements;
    const int end = l.depth.end - word * kElements;
    TileStep<0>(a + word * kElements, l.a_row, k % kElements, end, b, at, l.order.at(word, column),
                sum);
    k = (word + 1) * kElements;
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
  if (kElements > 1 && k < l.depth.end) {
    TileStep<0>(a + k, l.a_row, 0, l.depth.end - k, b, at, l.order.at(k / kElements, column), sum);
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int j = 0; j < V; ++j) hn::StoreU(sum[r][j], d, c + r * l.c_row + j * lanes);
  }
}

/// Vectors of columns of a register tile of r rows. With 32 registers, 6 rows x 4 vectors of
/// accumulators leave room for the 4 vectors of keys or values and a broadcast; with 16, 6 x 2 do.
/// Few rows have more: a multiply-add waits some cycles for the last one of its chain, so that it
/// takes 8 chains. Of one row all keys of a block go at once, if vectors are not too short: whole
/// rows of words are read, or panels side by side, which processors follow.
constexpr int VectorsOf(int r) {
  if (r == 1) return 8;
  if (r == 2) return kManyRegisters ? 8 : 4;
  if (r == 3) return hn::MaxLanes(F32()) == 8 ? 3 : 4;
  return kManyRegisters ? 4 : 2;
}

/// Passes over so many vectors of columns of a tile of r rows, at most R: quotients by constants,
/// since they are wanted for each block.
template <int R>
HWY_INLINE int64_t PassesOf(int64_t vectors, int64_t r) {
  if constexpr (R > 1) {
    if (r < R) return PassesOf<R - 1>(vectors, r);
  }
  return ceil_div(vectors, int64_t{VectorsOf(R)});
}

/// Columns [begin, end) of R rows, a whole number of vectors: V of them at a time. What is left
/// goes at once, too: one vector after the other would broadcast each row as often, and one alone
/// has too few chains.
template <int R, int V, class W>
HWY_INLINE void ProductColumns(const float* a, const W& b, const Layout& l, int64_t begin,
                               int64_t end, float* c, AheadSteps& ahead) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  const auto goes = [&](int64_t left) { return left >= V && (V < 3 || left != V + 1); };
  int64_t column = begin;
  for (; goes((end - column) / lanes); column += V * lanes) {
    ProductTile<R, V>(a, b, l, column, c + column, ahead);
  }
  if constexpr (V > 1) {
    // Short vectors are a panel by the fours.
    constexpr int kFewer = V > 4 || hn::MaxLanes(F32()) < 8 ? V / 2 : V - 1;
    if (column < end) ProductColumns<R, kFewer>(a, b, l, column, end, c, ahead);
  }
}

/// All columns of R rows. A function of its own: in one for all numbers of rows, GCC keeps sums of
/// 6 rows in memory, and takes twice the time.
template <int R, class W>
HWY_NOINLINE void ProductRows(const float* a, const W& b, const Layout& l, int64_t begin,
                              int64_t end, float* c, AheadSteps& all_ahead) {
  AheadSteps ahead = all_ahead;
  ProductColumns<R, VectorsOf(R)>(a, b, l, begin, end, c, ahead);
  all_ahead = ahead;
}

/// Whether one row is better read without asking for anything: in order and with little to compute,
/// and if that is f32, processors with 16 registers follow by themselves (measured on Zen 3).
template <class W>
constexpr bool kFollowed = !kManyRegisters && W::kType == KvDType::f32;

/// Columns [begin, end), a whole number of vectors.
template <class W>
HWY_NOINLINE void Product(const float* a, int64_t rows, const W& b, const Layout& l, int64_t begin,
                          int64_t end, const Ahead& next) {
  const int64_t vectors = (end - begin) / static_cast<int64_t>(hn::Lanes(F32()));
  const auto passes = [&](int64_t r) { return PassesOf<kRows>(vectors, r); };
  AheadSteps ahead(kFollowed<W> && rows == 1 ? nothing_ahead : next,
                   passes_over(rows, kRows, passes));
  for (int64_t row = 0; row < rows; row += kRows) {
    const float* x = a + row * l.a_row;
    float* c = l.c + row * l.c_row;
    switch (rows - row) {
      case 1:
        ProductRows<1>(x, b, l, begin, end, c, ahead);
        break;
      case 2:
        ProductRows<2>(x, b, l, begin, end, c, ahead);
        break;
      case 3:
        ProductRows<3>(x, b, l, begin, end, c, ahead);
        break;
      case 4:
        ProductRows<4>(x, b, l, begin, end, c, ahead);
        break;
      case 5:
        ProductRows<5>(x, b, l, begin, end, c, ahead);
        break;
      default:
        ProductRows<6>(x, b, l, begin, end, c, ahead);
    }
  }
  ahead.finish();
}

bool TakesStored(KvDType) { return false; }
BlockWords Arrange(KvDType t, const void* words, const WordOrder& order, int64_t, int64_t, int64_t,
                   void*) {
  return {words, t, order};
}
void EndRun() {}

/// As f32 rows.
int64_t QueryBytes(KvDType, int64_t head_dim) {
  return head_dim * static_cast<int64_t>(sizeof(float));
}

void PrepareQuery(KvDType, const float* q, int64_t head_dim, float scale, void* prepared) {
  auto* scaled = static_cast<float*>(prepared);
  for (int64_t d = 0; d < head_dim; ++d) scaled[d] = scale * q[d];
}

void Score(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k, Range keys,
           float* scores, int64_t scores_row, const Ahead& next) {
  const Layout layout{
      .a_row = head_dim,
      .order = k.order,
      .depth = {0, static_cast<int32_t>(head_dim)},
      .c = scores,
      .c_row = scores_row,
      .add = false,
  };
  WithWords(k.type, k.words, [&](const auto& words) HWY_ATTR {
    Product(static_cast<const float*>(queries), rows, words, layout,
            keys.begin / panel_columns * panel_columns, round_up(int64_t{keys.end}, panel_columns),
            next);
  });
}

void Accumulate(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim, float* acc,
                int64_t acc_row) {
  for (const WeighedBlock& block : blocks) {
    const Layout layout{
        .a_row = block.weights_row,
        .order = block.v->order,
        .depth = block.keys,
        .c = acc,
        .c_row = acc_row,
        .add = true,
    };
    WithWords(block.v->type, block.v->words, [&](const auto& words) HWY_ATTR {
      Product(block.weights, rows, words, layout, 0, v_head_dim, *block.next);
    });
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
