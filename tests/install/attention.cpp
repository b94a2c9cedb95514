// A program of somebody else that uses attention alone: it prints four outputs that are known
// exactly.
#include <gqa/attention.h>
#include <gqa/attention_backward.h>
#include <gqa/error.h>
#include <gqa/version.h>

#include <cmath>
#include <cstdio>
#include <vector>

namespace {

constexpr int64_t q_heads = 4;
constexpr int64_t kv_heads = 2;
constexpr int64_t dim = 16;

/// An Error of the library is caught here, by its own type and with its kind.
bool errors_arrive() {
  try {
    gqa::Context context({.isa = "abacus"});
  } catch (const gqa::Error& error) {
    return error.kind() == gqa::ErrorKind::usage;
  }
  return false;
}

}  // namespace

int main() {
  // One query of 4 heads against 2 tokens. The second token's score is larger by ln 3, so that it
  // has 3/4 of the attention.
  gqa::Context context({.threads = 2});
  gqa::KvCache cache({.kv_heads = {kv_heads}, .head_dim = dim, .v_head_dim = dim});
  std::vector<float> k(2 * kv_heads * dim), v(2 * kv_heads * dim), q(q_heads * dim), out(q.size());
  for (int64_t head = 0; head < kv_heads; ++head) {
    k[static_cast<size_t>((kv_heads + head) * dim)] = std::log(3.0f);
    for (int64_t d = 0; d < dim; ++d) {
      const auto base = static_cast<float>(4 * (head + 1));
      v[static_cast<size_t>(head * dim + d)] = base;
      v[static_cast<size_t>((kv_heads + head) * dim + d)] = 2 * base;
    }
  }
  for (int64_t head = 0; head < q_heads; ++head)
    q[static_cast<size_t>(head * dim)] = 4;  // sqrt(dim)

  const int64_t sequence = cache.create();
  cache.append(context, sequence, 0, {k.data(), gqa::DType::f32, {2, kv_heads, dim}},
               {v.data(), gqa::DType::f32, {2, kv_heads, dim}});
  const gqa::AttendItem item{.q = {q.data(), gqa::DType::f32, {1, q_heads, dim}},
                             .kv = cache.view(sequence, 0),
                             .out = {out.data(), gqa::DType::f32, {1, q_heads, dim}}};
  gqa::attend(context, std::span(&item, 1));

  std::printf("gqa %s:", GQA_VERSION);
  for (int64_t head = 0; head < q_heads; ++head) {
    std::printf(" %.4f", static_cast<double>(out[static_cast<size_t>(head * dim + dim - 1)]));
  }
  std::printf("\nerrors arrive: %s\n", errors_arrive() ? "yes" : "no");
}
