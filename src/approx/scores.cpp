#include "approx/scores.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "attention/blocks.h"
#include "kv/pages.h"

namespace gqa {

void Scores::compute(const kernels::Table& kernels, const PackedKv& kv, int64_t kv_head,
                     const float* q, int64_t rows, float scale, int64_t begin, int64_t end) {
  using kernels::key_block;
  const KvDType t = kv.layer().dtype;
  const int64_t dim = kv.layer().head_dim;
  const int64_t query_bytes = kernels.query_bytes(t, dim);
  auto* queries = static_cast<std::byte*>(queries_.reserve(rows * query_bytes));
  for (int64_t r = 0; r < rows; ++r) {
    kernels.prepare_query(t, q + r * dim, dim, scale, queries + r * query_bytes);
  }
  const auto float_bytes = static_cast<int64_t>(sizeof(float));
  auto* keys = static_cast<float*>(keys_.reserve(keys_scratch(dim) * float_bytes));
  auto* block_scores = static_cast<float*>(block_.reserve(rows * key_block * float_bytes));
  stride_ = round_up(end - begin, key_block);
  values_.resize(static_cast<size_t>(rows * stride_));
  const std::vector<uint64_t> all(static_cast<size_t>(rows), ~uint64_t{0});
  const KvBlocks blocks(kernels, kv, kv_head);
  for (int64_t block = begin / key_block; block * key_block < end; ++block) {
    const kernels::Range range{0,
                               static_cast<int32_t>(std::min(key_block, end - block * key_block))};
    const Operand k = blocks.keys(blocks.at(block), range, rows, true, keys);
    kernels.score(queries, rows, dim, k, range, block_scores, key_block,
                  {{blocks.cached_keys(blocks.at(block + 1))}});
    if (k.scales) kernels.scale_keys(block_scores, key_block, all.data(), rows, k.scales);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(block_scores + r * key_block, key_block, row(r) + block * key_block - begin);
    }
  }
  kernels.end_run();
}

void wanted(Scores& scores, int64_t first, int64_t heads, int64_t begin, int64_t end,
            float* value) {
  std::fill_n(value, end - begin, -std::numeric_limits<float>::infinity());
  for (int64_t h = 0; h < heads; ++h) {
    const float* row = scores.row(first + h);
    const float top = *std::max_element(row + begin, row + end);
    for (int64_t i = begin; i < end; ++i) {
      value[i - begin] = std::max(value[i - begin], row[i] - top);
    }
  }
}

void largest(const float* value, int64_t n, int64_t count, std::vector<int32_t>& order) {
  order.resize(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  if (count >= n) return;
  std::nth_element(order.begin(), order.begin() + count, order.end(), [&](int32_t a, int32_t b) {
    return value[a] > value[b] || (value[a] == value[b] && a < b);
  });
}

}  // namespace gqa
