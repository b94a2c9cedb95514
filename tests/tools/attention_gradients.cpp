// attend() and attend_backward() for another program: problems on standard input, one after the
// other, their gradients on standard output. tests/peers/test_backward.py writes and reads both.
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

#include "gqa/attention_backward.h"

namespace {

/// As numbers of 64 bits.
struct Problem {
  int64_t q_len, q_heads, kv_heads, head_dim, v_head_dim, kv_len;
  int64_t q_start, prefix, causal, window, block, sink_tokens;
  int64_t bias[3];                      ///< shape; 0 elements: none
  int64_t alibi, sinks, group_offsets;  ///< how many
};

template <typename T>
bool read(std::span<T> values) {
  return std::fread(values.data(), sizeof(T), values.size(), stdin) == values.size();
}

template <typename T>
std::vector<T> read_many(int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  if (!read(std::span(values))) {
    std::fputs("attention_gradients: a problem ends too early\n", stderr);
    std::exit(1);
  }
  return values;
}

void write(const std::vector<float>& values) {
  if (std::fwrite(values.data(), sizeof(float), values.size(), stdout) != values.size()) {
    std::fputs("attention_gradients: cannot write\n", stderr);
    std::exit(1);
  }
}

void solve(gqa::Context& context, const Problem& p) {
  using gqa::DType;
  const auto floats = [](int64_t a, int64_t b, int64_t c) { return read_many<float>(a * b * c); };
  const auto options = floats(1, 1, 2);  // scale, softcap
  const auto q = floats(p.q_len, p.q_heads, p.head_dim);
  const auto k = floats(p.kv_len, p.kv_heads, p.head_dim);
  const auto v = floats(p.kv_len, p.kv_heads, p.v_head_dim);
  const auto d_out = floats(p.q_len, p.q_heads, p.v_head_dim);
  const auto bias = floats(p.bias[0], p.bias[1], p.bias[2]);
  const auto alibi = floats(p.alibi, 1, 1);
  const auto sinks = floats(p.sinks, 1, 1);
  const auto group_offsets = read_many<int32_t>(p.group_offsets);
  std::vector<float> out(d_out.size()), lse(static_cast<size_t>(p.q_len * p.q_heads));
  std::vector<float> dq(q.size()), dk(k.size()), dv(v.size()), dbias(bias.size());
  std::vector<float> dsinks(sinks.size());
  const gqa::StridedKv kv{{k.data(), DType::f32, {1, p.kv_len, p.kv_heads, p.head_dim}},
                          {v.data(), DType::f32, {1, p.kv_len, p.kv_heads, p.v_head_dim}},
                          {},
                          0,
                          p.kv_len};
  gqa::AttendBackwardItem item;
  item.forward = {.q = {q.data(), DType::f32, {p.q_len, p.q_heads, p.head_dim}},
                  .kv = kv,
                  .out = {out.data(), DType::f32, {p.q_len, p.q_heads, p.v_head_dim}},
                  .lse = {lse.data(), DType::f32, {p.q_len, p.q_heads}},
                  .q_start = p.q_start,
                  .prefix = p.prefix};
  item.d_out = {d_out.data(), DType::f32, {p.q_len, p.q_heads, p.v_head_dim}};
  item.dq = {dq.data(), DType::f32, {p.q_len, p.q_heads, p.head_dim}};
  item.dk = {dk.data(), DType::f32, {1, p.kv_len, p.kv_heads, p.head_dim}};
  item.dv = {dv.data(), DType::f32, {1, p.kv_len, p.kv_heads, p.v_head_dim}};
  if (!bias.empty()) {
    item.forward.bias = {bias.data(), DType::f32, {p.bias[0], p.bias[1], p.bias[2]}};
    item.dbias = {dbias.data(), DType::f32, {p.bias[0], p.bias[1], p.bias[2]}};
  }
  const gqa::AttendOptions o{.scale = options[0],
                             .mask = {.causal = p.causal != 0,
                                      .window = p.window,
                                      .block = p.block,
                                      .sink_tokens = p.sink_tokens},
                             .softcap = options[1],
                             .alibi = alibi,
                             .sinks = sinks,
                             .group_offsets = group_offsets};
  gqa::attend(context, std::span(&item.forward, 1), o);
  gqa::attend_backward(context, std::span(&item, 1), o, dsinks);
  for (const auto& gradient : {dq, dk, dv, dbias, dsinks}) write(gradient);
}

}  // namespace

int main() {
  gqa::Context context({.threads = 2});
  for (Problem p; read(std::span(&p, 1));) solve(context, p);
}
