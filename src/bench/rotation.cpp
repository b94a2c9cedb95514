#include "bench/rotation.h"

#include <algorithm>

namespace gqa::bench {

DType q_dtype(const AttentionBench& b) {
  return is_quantised(b.kv_dtype) ? DType::f32 : element_dtype(b.kv_dtype);
}

KvShape kv_shape(const AttentionBench& b) {
  return {{b.kv_heads}, b.head_dim, b.v_head_dim, b.kv_dtype};
}

int64_t kv_bytes(const AttentionBench& b) {
  return kv_vector_bytes(b.kv_dtype, b.head_dim) + kv_vector_bytes(b.kv_dtype, b.v_head_dim);
}

int64_t count_caches(const AttentionBench& b, const BenchOptions& options, int64_t least,
                     int64_t row_bytes) {
  const int64_t pages = (b.kv_len - 1) / KvCache::page_size + 1;
  const int64_t cache = product(pages, KvCache::page_size, b.kv_heads, kv_bytes(b));
  if (cache > options.memory_bytes || row_bytes > options.memory_bytes - cache) {
    fail(ErrorKind::resources,
         "out of memory: keys and values take {} bytes, queries and outputs {}, and {} are there",
         cache, row_bytes, options.memory_bytes);
  }
  const int64_t wanted = std::max(least, options.rotate_bytes / cache + 1);
  return std::min(wanted, (options.memory_bytes - row_bytes) / cache);
}

Rotation::Rotation(Context& context, const AttentionBench& b, const std::vector<int64_t>& lens,
                   const Tokens& tokens, const Progress& progress)
    : cache_(kv_shape(b)) {
  constexpr int64_t lump = 1024;
  for (int64_t i = 0; i < std::ssize(lens); ++i) {
    if (progress) progress("fill", i, std::ssize(lens));
    ids_.push_back(cache_.create());
    for (int64_t at = 0; at < lens[i]; at += lump) {
      const int64_t n = std::min(lump, lens[i] - at);
      append(context, i, tokens(i, n), 0, n);
    }
  }
}

void Rotation::append(Context& context, int64_t i, const KvRows& rows, int64_t begin, int64_t n) {
  const KvShape& shape = cache_.shape();
  const int64_t kv_heads = shape.kv_heads[0];
  const auto view = [&](const std::vector<float>& values, int64_t dim) -> AnyView<3> {
    return {values.data() + begin * kv_heads * dim, DType::f32, {n, kv_heads, dim}};
  };
  cache_.append(context, id(i), 0, view(rows.k, shape.head_dim), view(rows.v, shape.v_head_dim));
}

}  // namespace gqa::bench
