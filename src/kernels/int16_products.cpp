// Products of queries and weights, as integers of 16 bits, and the integers of a quantised cache:
// sums of integers are exact, and two of them are multiplied and added where f32 takes one.
#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "core/kv_words.h"
#include "kernels/ahead.h"
#include "kernels/weighed_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/int16_products.cpp"
#include "kernels/targets.h"
//
#include "hwy/foreach_target.h"
// These come after foreach_target.h and in this order.
#include "kernels/load-inl.h"
//
#include "kernels/int16_products-inl.h"

#if GQA_INT16_PRODUCTS
#include "kernels/int16_row-inl.h"
//
#include "kernels/int16_tile-inl.h"
#include "kernels/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

int64_t Int16QueryBytes(KvDType t, int64_t head_dim) {
  return is_quantised(t) ? RowBytes(head_dim) : QueryBytes(t, head_dim);
}

void Int16PrepareQuery(KvDType t, const float* q, int64_t head_dim, float scale, void* prepared) {
  if (!is_quantised(t)) return PrepareQuery(t, q, head_dim, scale, prepared);
  ToIntegers(q, head_dim, LargestMagnitude(q, head_dim), scale, static_cast<std::byte*>(prepared));
}

void Int16Score(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k,
                Range keys, float* scores, int64_t scores_row, const Ahead& next) {
  if (!is_quantised(k.type)) {
    return Score(queries, rows, head_dim, k, keys, scores, scores_row, next);
  }
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32()));
  const IntegerProduct p{
      .rows = static_cast<const std::byte*>(queries),
      .row_bytes = RowBytes(head_dim),
      .words = static_cast<const int32_t*>(k.words),
      .begin = 0,
      .end = ceil_div(head_dim, word_elements(k.type)),
      .columns = key_block,
      .c = scores,
      .c_row = scores_row,
      .add = false,
  };
  MultiplyIntegers(k.type, p, rows, keys.begin / lanes * lanes, round_up(int64_t{keys.end}, lanes),
                   next);
}

HWY_NOINLINE void AccumulateIntegers(std::span<const WeighedBlock> blocks, int64_t rows,
                                     int64_t v_head_dim, float* acc, int64_t acc_row) {
  constexpr int64_t row_bytes = RowBytes(key_block);
  alignas(kLine) std::byte weights[kIntegerRows * row_bytes];
  for (const WeighedBlock& block : blocks) {
    const KvDType t = block.v->type;
    const Ahead* next = block.next;
    for (int64_t row = 0; row < rows; row += kIntegerRows) {
      const int64_t n = std::min(kIntegerRows, rows - row);
      if (SeenBlocks(std::span(&block, 1), row, n).size() == 0) continue;
      const float* x = block.weights + row * block.weights_row;
      // First what takes long by itself, of all rows side by side.
      float largest[kIntegerRows];
      for (int64_t r = 0; r < n; ++r) {
        largest[r] = LargestMagnitude(x + r * block.weights_row, key_block);
      }
      for (int64_t r = 0; r < n; ++r) {
        ToIntegers(x + r * block.weights_row, key_block, largest[r], 1.0f, weights + r * row_bytes);
      }
      const IntegerProduct p{
          .rows = weights,
          .row_bytes = row_bytes,
          .words = static_cast<const int32_t*>(block.v->words),
          .begin = block.keys.begin / word_elements(t),
          .end = ceil_div(int64_t{block.keys.end}, word_elements(t)),
          .columns = v_head_dim,
          .c = acc + row * acc_row,
          .c_row = acc_row,
          .add = true,
      };
      MultiplyIntegers(t, p, n, 0, v_head_dim, *next);
      next = &nothing_ahead;
    }
  }
}

void Int16Accumulate(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim,
                     float* acc, int64_t acc_row) {
  const auto body = is_quantised(blocks[0].v->type) ? AccumulateIntegers : Accumulate;
  body(blocks, rows, v_head_dim, acc, acc_row);
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
