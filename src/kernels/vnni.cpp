#include "kernels/vnni.h"

#if defined(__x86_64__)

#include <algorithm>
#include <array>
#include <span>

#include "core/checked.h"
#include "core/kv_words.h"
#include "kernels/vnni_products.h"
#include "kernels/weighed_blocks.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {
namespace {

/// What multiplies all else.
const Table* vectors = nullptr;

int64_t query_bytes(KvDType t, int64_t head_dim) {
  return is_quantised(t) ? split_bytes(head_dim) : vectors->query_bytes(t, head_dim);
}

void prepare_query(KvDType t, const float* q, int64_t head_dim, float scale, void* prepared) {
  if (!is_quantised(t)) return vectors->prepare_query(t, q, head_dim, scale, prepared);
  split(q, head_dim, scale, static_cast<std::byte*>(prepared));
}

void score(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k, Range keys,
           float* scores, int64_t scores_row, const Ahead& next) {
  if (!is_quantised(k.type)) {
    return vectors->score(queries, rows, head_dim, k, keys, scores, scores_row, next);
  }
  const int64_t words = ceil_div(head_dim, word_elements(k.type));
  const int64_t begin = keys.begin / 16 * 16, end = round_up(int64_t{keys.end}, 16);
  SplitPart part{static_cast<const std::byte*>(queries), static_cast<const int32_t*>(k.words), 0,
                 words, AheadSteps(next, split_passes(rows, end - begin))};
  const SplitProduct p{
      .parts = std::span(&part, 1),
      .row_bytes = split_bytes(head_dim),
      .n = head_dim,
      .columns = key_block,
      .c = scores,
      .c_row = scores_row,
      .add = false,
  };
  multiply_split(k.type, p, rows, begin, end);
}

void accumulate(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim, float* acc,
                int64_t acc_row) {
  const KvDType t = blocks[0].v->type;
  if (!is_quantised(t)) return vectors->accumulate(blocks, rows, v_head_dim, acc, acc_row);
  constexpr int64_t row_bytes = split_bytes(key_block);
  alignas(64) std::byte split_rows[stretch_blocks][split_tile_rows * row_bytes];
  for (int64_t row = 0; row < rows; row += split_tile_rows) {
    const int64_t n = std::min(split_tile_rows, rows - row);
    std::array<SplitPart, stretch_blocks> parts;
    std::array<const float*, stretch_blocks> weights;
    std::array<std::byte*, stretch_blocks> split_to;
    size_t count = 0;
    for (const size_t i : SeenBlocks(blocks, row, n)) {
      const WeighedBlock& block = blocks[i];
      const int64_t begin = block.keys.begin / word_elements(t);
      const int64_t end = ceil_div(int64_t{block.keys.end}, word_elements(t));
      weights[count] = block.weights + row * block.weights_row;
      split_to[count] = split_rows[i];
      const Ahead& next = row == 0 ? *block.next : nothing_ahead;
      parts[count++] = {split_rows[i], static_cast<const int32_t*>(block.v->words), begin, end,
                        AheadSteps(next, split_passes(n, v_head_dim))};
    }
    if (count == 0) continue;
    for (int64_t r = 0; r < n; ++r) {
      split_weights(weights.data(), static_cast<int64_t>(count), split_to.data());
      for (size_t i = 0; i < count; ++i) {
        weights[i] += blocks[0].weights_row;
        split_to[i] += row_bytes;
      }
    }
    const SplitProduct p{
        .parts = std::span(parts.data(), count),
        .row_bytes = row_bytes,
        .n = key_block,
        .columns = v_head_dim,
        .c = acc + row * acc_row,
        .c_row = acc_row,
        .add = true,
    };
    multiply_split(t, p, n, 0, v_head_dim);
  }
}

}  // namespace

const Table& vnni_table(const Table& base) {
  static const Table table = [&] {
    vectors = &base;
    Table changed = base;
    changed.isa = emulates ? "vnni_emulated" : "avx512_vnni";
    changed.takes_stored = is_quantised;
    changed.query_bytes = query_bytes;
    changed.prepare_query = prepare_query;
    changed.score = score;
    changed.accumulate = accumulate;
    return changed;
  }();
  return table;
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
