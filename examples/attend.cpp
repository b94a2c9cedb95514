// Grouped-query attention in a program of your own: fill a cache, attend a prompt, then one token;
// then fork the prompt, so that a second answer shares its pages.
// Built as `build/release/example_attend`.
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

#include "gqa/attention.h"
#include "gqa/error.h"

namespace {

constexpr int64_t q_heads = 32, kv_heads = 8, head_dim = 128;

std::vector<float> random_vector(int64_t n) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& value : x)
    value = static_cast<float>(std::rand()) / static_cast<float>(RAND_MAX) - 0.5f;
  return x;
}

/// Appends n tokens to the cache and attends them: all of them see the past, none the future.
std::vector<float> feed(gqa::Context& context, gqa::KvCache& cache, int64_t sequence, int64_t n) {
  using gqa::DType;
  const auto q = random_vector(n * q_heads * head_dim);
  const auto k = random_vector(n * kv_heads * head_dim);
  const auto v = random_vector(n * kv_heads * head_dim);
  cache.append(context, sequence, 0, {k.data(), DType::f32, {n, kv_heads, head_dim}},
               {v.data(), DType::f32, {n, kv_heads, head_dim}});
  std::vector<float> out(q.size());
  const gqa::AttendItem item{.q = {q.data(), DType::f32, {n, q_heads, head_dim}},
                             .kv = cache.view(sequence, 0),
                             .out = {out.data(), DType::f32, {n, q_heads, head_dim}}};
  gqa::attend(context, std::span(&item, 1));
  return out;
}

}  // namespace

int main() {
  try {
    gqa::Context context;  // all cores, the best instruction set
    gqa::KvCache cache({.kv_heads = {kv_heads},
                        .head_dim = head_dim,
                        .v_head_dim = head_dim,
                        .dtype = gqa::KvDType::f16});
    const int64_t sequence = cache.create();
    feed(context, cache, sequence, 300);                 // a prompt
    const auto out = feed(context, cache, sequence, 1);  // one more token
    std::printf("%lld tokens in %lld bytes of cache; out[0] = %.6f (%s, %d threads)\n",
                static_cast<long long>(cache.len(sequence)),
                static_cast<long long>(cache.used_bytes(sequence)), static_cast<double>(out[0]),
                context.isa().data(), context.threads());
    const int64_t second = cache.fork(sequence, 300);  // copies nothing until it is written to
    feed(context, cache, second, 1);
    std::printf("two answers in %lld pages, %lld of them shared\n",
                static_cast<long long>(cache.usage().pages),
                static_cast<long long>(cache.usage().shared_pages));
  } catch (const gqa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.exit_code();
  }
}
