// How fast attention is, beside the machine's two ceilings measured in the same run: the rate at
// which the same threads read memory, and SGEMM. Sequences rotate, so that the last level can't
// hold what is read.
#include <benchmark/benchmark.h>
#include <fmt/core.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "gqa/attention.h"

namespace {

using gqa::DType;
using gqa::KvDType;

constexpr int64_t q_heads = 32;
constexpr int64_t head_dim = 128;
/// More than the last-level cache of any machine seen (480 MB).
constexpr int64_t rotation_bytes = int64_t{640} << 20;

gqa::Context& context() {
  static gqa::Context shared;
  return shared;
}

std::vector<float> random_floats(int64_t n) {
  std::minstd_rand random(1);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& x : values) x = static_cast<float>(random()) / 1.1e9f - 1.0f;
  return values;
}

/// A new sequence of random tokens.
int64_t fill(gqa::KvCache& cache, int64_t kv_len) {
  const int64_t kv_heads = cache.shape().kv_heads.front();
  const int64_t sequence = cache.create();
  const int64_t n = 256;
  const auto tokens = random_floats(n * kv_heads * head_dim);
  const gqa::AnyView<3> view(tokens.data(), DType::f32, {n, kv_heads, head_dim});
  for (int64_t at = 0; at < kv_len; at += n) cache.append(context(), sequence, 0, view, view);
  return sequence;
}

/// One query token against a long cache: bound by reading it.
void decode(benchmark::State& state, int64_t kv_heads, int64_t kv_len, KvDType dtype) {
  gqa::KvCache cache({{kv_heads}, head_dim, head_dim, dtype});
  const int64_t bytes = cache.shape().bytes_per_token() * kv_len;
  std::vector<int64_t> sequences;
  for (int64_t i = 0; i * bytes < rotation_bytes; ++i) sequences.push_back(fill(cache, kv_len));
  const auto q = random_floats(q_heads * head_dim);
  std::vector<float> out(q.size());
  size_t next = 0;
  for (auto _ : state) {
    const gqa::AttendItem item{.q = {q.data(), DType::f32, {1, q_heads, head_dim}},
                               .kv = cache.view(sequences[next++ % sequences.size()], 0),
                               .out = {out.data(), DType::f32, {1, q_heads, head_dim}}};
    gqa::attend(context(), std::span(&item, 1));
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}

struct Prompt {
  int64_t q_heads = 32;
  int64_t kv_heads = 8;
  int64_t tokens = 2048;
};

/// Pairs of a query and a key that it sees.
double visible_pairs(const gqa::Mask& mask, int64_t tokens) {
  double pairs = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (const gqa::KeyRange& run : gqa::visible_keys(mask, t, {.len = tokens})) {
      pairs += static_cast<double>(run.end - run.begin);
    }
  }
  return pairs;
}

/// A whole prompt, f16 cache: bound by arithmetic. Useful operations only.
void prefill(benchmark::State& state, const Prompt& p, const gqa::AttendOptions& options) {
  gqa::KvCache cache({{p.kv_heads}, head_dim, head_dim, KvDType::f16});
  const int64_t sequence = fill(cache, p.tokens);
  const auto q = random_floats(p.tokens * p.q_heads * head_dim);
  std::vector<float> out(q.size());
  for (auto _ : state) {
    const gqa::AttendItem item{.q = {q.data(), DType::f32, {p.tokens, p.q_heads, head_dim}},
                               .kv = cache.view(sequence, 0),
                               .out = {out.data(), DType::f32, {p.tokens, p.q_heads, head_dim}}};
    gqa::attend(context(), std::span(&item, 1), options);
  }
  const double operations =
      4.0 * static_cast<double>(p.q_heads * head_dim) * visible_pairs(options.mask, p.tokens);
  state.counters["FLOP/s"] = benchmark::Counter(
      operations * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

/// Ceiling of decode: reading memory with the same number of threads.
void read_memory(benchmark::State& state) {
  const auto n = static_cast<size_t>(rotation_bytes) / sizeof(uint64_t);
  const std::vector<uint64_t> memory(n, 1);
  const auto threads = static_cast<size_t>(context().threads());
  for (auto _ : state) {
    std::vector<std::thread> readers;
    for (size_t t = 0; t < threads; ++t) {
      readers.emplace_back([&, t] {
        uint64_t sums[8] = {};
        for (size_t i = n / threads * t; i + 8 <= n / threads * (t + 1); i += 8) {
          for (size_t j = 0; j < 8; ++j) sums[j] += memory[i + j];
        }
        benchmark::DoNotOptimize(sums);
      });
    }
    for (auto& reader : readers) reader.join();
  }
  state.SetBytesProcessed(state.iterations() * rotation_bytes);
}

/// Ceiling of prefill in f32.
void sgemm(benchmark::State& state) {
  constexpr int64_t n = 2048;
  const auto a = random_floats(n * n);
  std::vector<float> c(a.size());
  omp_set_num_threads(context().threads());
  for (auto _ : state) {
    dnnl_sgemm('N', 'N', n, n, n, 1.0f, a.data(), n, a.data(), n, 0.0f, c.data(), n);
  }
  state.counters["FLOP/s"] = benchmark::Counter(
      2.0 * n * n * n * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void register_all() {
  using benchmark::RegisterBenchmark;
  const auto add = [](const std::string& name, const auto& body) {
    RegisterBenchmark(name.c_str(), body)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  add("read memory", read_memory);
  for (const KvDType t : {KvDType::f32, KvDType::f16, KvDType::bf16}) {
    for (const int64_t kv_heads : {32, 8, 1}) {
      add(fmt::format("decode 16384 keys, 32/{} heads, {}", kv_heads, gqa::kv_dtype_name(t)),
          [=](benchmark::State& s) { decode(s, kv_heads, 16384, t); });
    }
  }
  add("sgemm 2048", sgemm);
  const auto add_prefill = [&](const std::string& what, const Prompt& p,
                               const gqa::AttendOptions& options) {
    add(fmt::format("prefill {} tokens, {}/{} heads, f16{}", p.tokens, p.q_heads, p.kv_heads, what),
        [=](benchmark::State& s) { prefill(s, p, options); });
  };
  static const std::vector<float> slopes(32, 0.1f);
  add_prefill("", {.kv_heads = 32}, {});
  add_prefill("", {}, {});
  add_prefill(", soft cap", {}, {.softcap = 30.0f});
  add_prefill(", ALiBi", {}, {.alibi = slopes});
  const Prompt long_prompt{.q_heads = 8, .kv_heads = 2, .tokens = 32768};
  add_prefill("", long_prompt, {});
  add_prefill(", window 4096", long_prompt, {.mask = {.window = 4096}});
  add_prefill(", blocks of 4096", long_prompt, {.mask = {.block = 4096}});
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("isa", std::string(context().isa()));
  benchmark::AddCustomContext("threads", std::to_string(context().threads()));
  register_all();
  benchmark::RunSpecifiedBenchmarks();
}
