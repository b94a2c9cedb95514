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
#include "kernels/product_tile-inl.h"
#include "kernels/words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

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

/// Whether each number of rows has a tile of its own. Elsewhere 3 to 5 rows go by twos and ones, in
/// half the time to compile: on processors older than AVX2, and for quantised caches where products
/// of integers take their place (int16_products.cpp).
template <class W>
constexpr bool kEachNumber = HWY_TARGET == HWY_NEON ||
                             (hn::MaxLanes(F32()) >= 8 && !is_quantised(W::kType));

/// Rows of the next tile, if so many are left.
template <class W>
constexpr int64_t RowsOf(int64_t left) {
  if (left >= kRows) return kRows;
  return kEachNumber<W> || left < 2 ? left : 2;
}

/// Passes over so many vectors of columns of r rows, at most R: quotients by constants, since they
/// are wanted for each block.
template <class W, int R>
HWY_INLINE int64_t PassesOf(int64_t vectors, int64_t r) {
  if constexpr (R > 1) {
    if (r < R) return PassesOf<W, R - 1>(vectors, r);
  }
  constexpr int kTile = static_cast<int>(RowsOf<W>(R));
  const int64_t passes = ceil_div(vectors, int64_t{VectorsOf(kTile)});
  if constexpr (kTile < R) return passes + PassesOf<W, R - kTile>(vectors, R - kTile);
  return passes;
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

/// Columns of n rows, at most R, which are as many as a tile has.
template <int R, class W>
HWY_INLINE void RowsAtOnce(int64_t n, const float* a, const W& b, const Layout& l, int64_t begin,
                           int64_t end, float* c, AheadSteps& ahead) {
  if constexpr (R > 1) {
    if (n < R) return RowsAtOnce<R - 1>(n, a, b, l, begin, end, c, ahead);
  }
  if constexpr (RowsOf<W>(R) == R) ProductRows<R>(a, b, l, begin, end, c, ahead);
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
  const auto passes = [&](int64_t r) { return PassesOf<W, kRows>(vectors, r); };
  AheadSteps ahead(kFollowed<W> && rows == 1 ? nothing_ahead : next,
                   passes_over(rows, kRows, passes));
  for (int64_t row = 0; row < rows;) {
    const float* x = a + row * l.a_row;
    float* c = l.c + row * l.c_row;
    const int64_t n = RowsOf<W>(rows - row);
    RowsAtOnce<kRows, W>(n, x, b, l, begin, end, c, ahead);
    row += n;
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
