// attend() beside the machine's ceilings.
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "bench/counting.h"
#include "bench/multiply_add.h"
#include "bench/random_floats.h"
#include "bench/read_memory.h"
#include "bench/sgemm.h"
#include "bench/timing.h"
#include "core/fail.h"
#include "gqa/attention.h"
#include "gqa/bench.h"
#include "kernels/context.h"

namespace gqa {
namespace {

/// Products of sizes; Error (resources) where they can't be counted.
template <typename... Sizes>
int64_t product(Sizes... sizes) {
  std::optional<int64_t> result = 1;
  for (const int64_t size : {static_cast<int64_t>(sizes)...}) {
    if (result) result = checked_mul(*result, size);
  }
  if (!result) fail(ErrorKind::resources, "out of memory: the sizes can't be counted in bytes");
  return *result;
}

void check(const AttentionBench& b, const BenchOptions& options) {
  const auto at_least_1 = [](const char* name, int64_t value) {
    require(value >= 1, "{} is {}, expected 1 or more", name, value);
  };
  at_least_1("q_heads", b.q_heads);
  at_least_1("kv_heads", b.kv_heads);
  at_least_1("head_dim", b.head_dim);
  at_least_1("v_head_dim", b.v_head_dim);
  at_least_1("kv_len", b.kv_len);
  at_least_1("q_len", b.q_len);
  require(b.q_heads % b.kv_heads == 0, "kv_heads is {}, expected a divisor of q_heads ({})",
          b.kv_heads, b.q_heads);
  require(b.q_len <= b.kv_len,
          "q_len is {}, expected at most kv_len ({}): the queries' own keys are among them",
          b.q_len, b.kv_len);
  require(b.window >= 0, "window is {}, expected 0 or more", b.window);
  require(b.softcap >= 0 && std::isfinite(b.softcap), "softcap is {}, expected 0 or more",
          b.softcap);
  require(options.repeats >= 0, "repeats is {}, expected 0 or more", options.repeats);
}

/// Elements of the bench's dtype, random or to be written.
class Array {
 public:
  Array(int64_t rows, int64_t heads, int64_t dim, DType dtype)
      : shape_{rows, heads, dim},
        dtype_(dtype),
        memory_(product(rows, heads, dim, dtype_bytes(dtype))) {}

  void fill(const kernels::Table& kernels) {
    const int64_t n = shape_[1] * shape_[2];
    const std::vector<float> row = bench::random_floats(n);
    for (int64_t r = 0; r < shape_[0]; ++r) {
      auto* to = static_cast<std::byte*>(memory_.data()) + r * n * dtype_bytes(dtype_);
      kernels.encode(dtype_, row.data(), n, to);
    }
  }

  AnyView<3> view() const { return {memory_.data(), dtype_, shape_}; }
  AnyMutView<3> mut_view() { return {memory_.data(), dtype_, shape_}; }

 private:
  std::array<int64_t, 3> shape_;
  DType dtype_;
  AlignedBuffer memory_;
};

/// Caches that take turns, all of the same size.
class Rotation {
 public:
  Rotation(Context& context, const AttentionBench& b, int64_t count, const Progress& progress)
      : cache_({{b.kv_heads}, b.head_dim, b.v_head_dim, b.kv_dtype}) {
    constexpr int64_t lump = 1024;
    const int64_t n = std::min(lump, b.kv_len);
    const auto k = bench::random_floats(product(n, b.kv_heads, b.head_dim));
    const auto v = bench::random_floats(product(n, b.kv_heads, b.v_head_dim));
    for (int64_t i = 0; i < count; ++i) {
      if (progress) progress("fill", i, count);
      sequences_.push_back(cache_.create());
      for (int64_t at = 0; at < b.kv_len; at += n) {
        const int64_t tokens = std::min(n, b.kv_len - at);
        cache_.append(context, sequences_.back(), 0,
                      {k.data(), DType::f32, {tokens, b.kv_heads, b.head_dim}},
                      {v.data(), DType::f32, {tokens, b.kv_heads, b.v_head_dim}});
      }
    }
  }

  /// The one that was left alone for longest.
  PackedKv next() { return cache_.view(sequences_[turn_++ % sequences_.size()], 0); }

  int64_t count() const { return std::ssize(sequences_); }
  int64_t bytes() const { return cache_.usage().bytes; }

 private:
  KvCache cache_;
  std::vector<int64_t> sequences_;
  size_t turn_ = 0;
};

/// Type of queries and outputs.
DType q_dtype(const AttentionBench& b) {
  return is_quantised(b.kv_dtype) ? DType::f32 : element_dtype(b.kv_dtype);
}

/// How many caches rotate: at least two, and enough, unless memory ends.
int64_t count_caches(const AttentionBench& b, const BenchOptions& options) {
  const int64_t dims = checked_add(b.head_dim, b.v_head_dim).value_or(INT64_MAX);
  const int64_t token =
      kv_vector_bytes(b.kv_dtype, b.head_dim) + kv_vector_bytes(b.kv_dtype, b.v_head_dim);
  const int64_t pages = (b.kv_len - 1) / KvCache::page_size + 1;
  const int64_t cache = product(pages, KvCache::page_size, b.kv_heads, token);
  const int64_t rows = product(b.q_len, b.q_heads, dims, dtype_bytes(q_dtype(b)));
  if (cache > options.memory_bytes || rows > options.memory_bytes - cache) {
    fail(ErrorKind::resources,
         "out of memory: keys and values take {} bytes, queries and outputs {}, and {} are there",
         cache, rows, options.memory_bytes);
  }
  const int64_t wanted = std::max<int64_t>(2, options.rotate_bytes / cache + 1);
  return std::min(wanted, (options.memory_bytes - rows) / cache);
}

}  // namespace

AttentionBenchResult bench_attention(Context& context, const AttentionBench& b,
                                     const BenchOptions& options, const Progress& progress) {
  check(b, options);
  const int64_t count = count_caches(b, options);
  Rotation caches(context, b, count, progress);
  Array q(b.q_len, b.q_heads, b.head_dim, q_dtype(b));
  Array out(b.q_len, b.q_heads, b.v_head_dim, q_dtype(b));
  q.fill(*context.impl().kernels);
  const std::vector<float> sinks(static_cast<size_t>(b.sinks ? b.q_heads : 0), 0.5f);
  const AttendOptions attend_options{
      .mask = {.window = b.window}, .softcap = b.softcap, .sinks = sinks};
  const std::vector<KeyRange> seen = bench::seen_keys(attend_options.mask, b.q_len, b.kv_len);
  bench::Sgemm sgemm;
  bench::Timing attend_time;
  bench::Timing read_time;
  bench::Timing sgemm_time;
  bench::Timing peak_time;
  double peak_operations = 0;
  std::vector<bench::Piece> pieces;
  // attend() comes straight after reading, so that the pool's threads are awake for both.
  const auto turn = [&] {
    sgemm_time.time([&] { sgemm.run(context.impl().pool); });
    peak_time.time([&] { peak_operations = bench::multiply_add(context.impl().pool); });
    const PackedKv to_read = caches.next();
    pieces.clear();
    for (const KeyRange& keys : seen) bench::append_pages(to_read.layer(), keys, pieces);
    const AttendItem item{.q = q.view(), .kv = caches.next(), .out = out.mut_view()};
    read_time.time([&] { bench::read_memory(context.impl().pool, pieces); });
    attend_time.time([&] { attend(context, std::span(&item, 1), attend_options); });
  };
  turn();
  for (auto* timing : {&attend_time, &read_time, &sgemm_time, &peak_time}) timing->clear();
  bench::Turns turns(options.repeats, progress);
  while (turns.next()) turn();

  AttentionBenchResult result;
  result.ms = attend_time.ms();
  result.kv_bytes =
      bench::count_keys(seen) * b.kv_heads *
      (kv_vector_bytes(b.kv_dtype, b.head_dim) + kv_vector_bytes(b.kv_dtype, b.v_head_dim));
  result.gb_per_s = {bench::giga_per_s(static_cast<double>(result.kv_bytes), attend_time),
                     bench::giga_per_s(static_cast<double>(bench::total_bytes(pieces)), read_time)};
  const int64_t pairs = bench::visible_pairs(attend_options.mask, b.q_len, b.kv_len);
  result.gflop_per_s = {
      bench::giga_per_s(bench::attention_flop(b.q_heads, b.head_dim, b.v_head_dim, pairs),
                        attend_time),
      bench::giga_per_s(bench::Sgemm::flop, sgemm_time)};
  result.peak_gflop_per_s = bench::giga_per_s(peak_operations, peak_time);
  const bench::Timing* const timed = &attend_time;
  result.cpu_fraction = bench::cpu_fraction(std::span(&timed, 1), context.threads());
  result.repeats = turns.done();
  result.caches = caches.count();
  result.rotated_bytes = caches.bytes();
  return result;
}

}  // namespace gqa
