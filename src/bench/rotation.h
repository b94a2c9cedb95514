// What calls of attention are timed on: caches that take turns, queries and outputs.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "core/fail.h"
#include "gqa/bench.h"
#include "gqa/context.h"
#include "gqa/kv_cache.h"
#include "gqa/progress.h"
#include "gqa/view.h"
#include "kernels/kernels.h"

namespace gqa::bench {

/// Product of sizes; Error (resources) where it can't be counted.
template <typename... Sizes>
int64_t product(Sizes... sizes) {
  std::optional<int64_t> result = 1;
  for (const int64_t size : {static_cast<int64_t>(sizes)...}) {
    if (result) result = checked_mul(*result, size);
  }
  if (!result) fail(ErrorKind::resources, "out of memory: the sizes can't be counted in bytes");
  return *result;
}

/// Throws Error (usage) as bench_attention() does.
void check(const AttentionBench& b, const BenchOptions& options);

/// Type of queries and outputs.
DType q_dtype(const AttentionBench& b);

/// Of its caches.
KvShape kv_shape(const AttentionBench& b);

/// Bytes of a key and a value of one KV head.
int64_t kv_bytes(const AttentionBench& b);

/// How many caches rotate: at least so many, and enough, unless memory ends. row_bytes: of queries,
/// outputs and what else is kept. Throws Error (resources) where memory does not hold one.
int64_t count_caches(const AttentionBench& b, const BenchOptions& options, int64_t least,
                     int64_t row_bytes);

/// Rows of elements, [rows, heads, dim].
class Array {
 public:
  Array(int64_t rows, int64_t heads, int64_t dim, DType dtype)
      : shape_{rows, heads, dim},
        dtype_(dtype),
        memory_(product(rows, heads, dim, dtype_bytes(dtype))) {}

  /// values: [heads, dim]
  void set_row(const kernels::Table& kernels, int64_t row, const float* values) {
    kernels.encode(dtype_, values, shape_[1] * shape_[2], at(row));
  }
  /// Rows [begin, begin + n).
  AnyView<3> view(int64_t begin, int64_t n) const {
    return {at(begin), dtype_, {n, shape_[1], shape_[2]}};
  }
  /// The first n rows.
  AnyMutView<3> mut_view(int64_t n) { return {at(0), dtype_, {n, shape_[1], shape_[2]}}; }
  int64_t rows() const { return shape_[0]; }

 private:
  std::byte* at(int64_t row) const {
    return static_cast<std::byte*>(memory_.data()) +
           row * shape_[1] * shape_[2] * dtype_bytes(dtype_);
  }

  std::array<int64_t, 3> shape_;
  DType dtype_;
  AlignedBuffer memory_;
};

/// Keys and values of several tokens, [n, kv_heads, dim] each.
struct KvRows {
  std::vector<float> k;
  std::vector<float> v;
};

/// Caches that take turns.
class Rotation {
 public:
  /// Gives the keys and values of the next n tokens of a sequence, from its first on.
  using Tokens = std::function<const KvRows&(int64_t sequence, int64_t n)>;

  /// One sequence for each of lens.
  Rotation(Context& context, const AttentionBench& b, const std::vector<int64_t>& lens,
           const Tokens& tokens, const Progress& progress);

  KvCache& cache() { return cache_; }
  /// The id of sequence i, counted round and round.
  int64_t id(int64_t i) const { return ids_[static_cast<size_t>(i) % ids_.size()]; }
  PackedKv view(int64_t i) const { return cache_.view(id(i), 0); }
  /// Appends n tokens, which begin at row `begin` of rows.
  void append(Context& context, int64_t i, const KvRows& rows, int64_t begin, int64_t n);

  int64_t count() const { return std::ssize(ids_); }
  int64_t bytes() const { return cache_.usage().bytes; }

 private:
  KvCache cache_;
  std::vector<int64_t> ids_;
};

}  // namespace gqa::bench
