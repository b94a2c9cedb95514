// attend_backward() beside attend() and the machine's ceiling.
#include <span>
#include <vector>

#include "attention/backward_pairs.h"
#include "bench/ceilings.h"
#include "bench/counting.h"
#include "bench/random_floats.h"
#include "bench/rotation.h"
#include "core/fail.h"
#include "gqa/attention_backward.h"
#include "gqa/bench.h"
#include "kernels/context.h"

namespace gqa {
namespace {

AttentionBench forward_of(const BackwardBench& b) {
  return {.q_heads = b.q_heads,
          .kv_heads = b.kv_heads,
          .head_dim = b.head_dim,
          .v_head_dim = b.v_head_dim,
          .kv_len = b.kv_len,
          .q_len = b.q_len,
          .window = b.window,
          .softcap = b.softcap,
          .sinks = b.sinks};
}

/// All arrays of a sequence.
class BackwardArrays {
 public:
  BackwardArrays(const kernels::Table& kernels, const BackwardBench& b)
      : b_(b),
        q_(b.q_len, b.q_heads, b.head_dim, b.dtype),
        dq_(b.q_len, b.q_heads, b.head_dim, b.dtype),
        out_(b.q_len, b.q_heads, b.v_head_dim, b.dtype),
        d_out_(b.q_len, b.q_heads, b.v_head_dim, b.dtype),
        k_(b.kv_len, b.kv_heads, b.head_dim, b.dtype),
        dk_(b.kv_len, b.kv_heads, b.head_dim, b.dtype),
        v_(b.kv_len, b.kv_heads, b.v_head_dim, b.dtype),
        dv_(b.kv_len, b.kv_heads, b.v_head_dim, b.dtype),
        lse_(b.q_len, 1, b.q_heads, DType::f32) {
    for (auto* array : {&q_, &d_out_, &k_, &v_}) fill(kernels, *array);
  }

  static int64_t bytes(const BackwardBench& b) {
    const int64_t dims = checked_add(b.head_dim, b.v_head_dim).value_or(INT64_MAX);
    const int64_t queries = bench::product(b.q_len, b.q_heads, dims, 2, dtype_bytes(b.dtype));
    const int64_t keys = bench::product(b.kv_len, b.kv_heads, dims, 2, dtype_bytes(b.dtype));
    const int64_t lse = bench::product(b.q_len, b.q_heads, int64_t{sizeof(float)});
    const auto both = checked_add(queries, keys);
    return both ? checked_add(*both, lse).value_or(INT64_MAX) : INT64_MAX;
  }

  AttendBackwardItem item() {
    const auto paged = [&](const AnyView<3>& x) {
      return AnyView<4>{x.data, x.dtype, {1, x.shape[0], x.shape[1], x.shape[2]}};
    };
    const auto paged_mut = [&](const AnyMutView<3>& x) {
      return AnyMutView<4>{x.data, x.dtype, {1, x.shape[0], x.shape[1], x.shape[2]}};
    };
    AttendBackwardItem item;
    item.forward.q = q_.view(0, b_.q_len);
    StridedKv kv;
    kv.k = paged(k_.view(0, b_.kv_len));
    kv.v = paged(v_.view(0, b_.kv_len));
    kv.len = b_.kv_len;
    item.forward.kv = kv;
    item.forward.out = out_.mut_view(b_.q_len);
    item.forward.lse = {lse_.mut_view(b_.q_len).data, DType::f32, {b_.q_len, b_.q_heads}};
    item.d_out = d_out_.view(0, b_.q_len);
    item.dq = dq_.mut_view(b_.q_len);
    item.dk = paged_mut(dk_.mut_view(b_.kv_len));
    item.dv = paged_mut(dv_.mut_view(b_.kv_len));
    return item;
  }

 private:
  void fill(const kernels::Table& kernels, bench::Array& array) {
    const auto shape = array.mut_view(1).shape;
    const int64_t n = shape[1] * shape[2];
    // Rows that differ, from one lump of numbers.
    constexpr int64_t shifts = 61;
    const std::vector<float> lump = bench::random_floats(n + shifts);
    for (int64_t r = 0; r < array.rows(); ++r) array.set_row(kernels, r, &lump[r % shifts]);
  }

  const BackwardBench& b_;
  bench::Array q_, dq_, out_, d_out_, k_, dk_, v_, dv_, lse_;
};

}  // namespace

BackwardBenchResult bench_backward(Context& context, const BackwardBench& b,
                                   const BenchOptions& options, const Progress& progress) {
  bench::check(forward_of(b), options);
  const int64_t bytes = BackwardArrays::bytes(b);
  if (bytes > options.memory_bytes) {
    fail(ErrorKind::resources, "out of memory: the arrays take {} bytes, there are {}", bytes,
         options.memory_bytes);
  }
  BackwardArrays arrays(*context.impl().kernels, b);
  const std::vector<float> sinks(static_cast<size_t>(b.sinks ? b.q_heads : 0), 0.5f);
  std::vector<float> dsinks(sinks.size());
  const AttendOptions attend_options{
      .mask = {.window = b.window}, .softcap = b.softcap, .sinks = sinks};
  const AttendBackwardItem item = arrays.item();
  const bool in_tiles = takes_pairs(*context.impl().kernels, item);
  bench::Ceilings ceilings(context.impl().pool, options, in_tiles);
  bench::Timing forward_time, backward_time;
  const auto turn = [&] {
    ceilings.time_arithmetic();
    forward_time.time([&] { attend(context, std::span(&item.forward, 1), attend_options); });
    backward_time.time(
        [&] { attend_backward(context, std::span(&item, 1), attend_options, dsinks); });
  };
  turn();
  ceilings.clear();
  forward_time.clear();
  backward_time.clear();
  bench::Turns turns(options.repeats, progress);
  while (turns.next()) turn();

  BackwardBenchResult result;
  result.ms = backward_time.ms();
  result.forward_ms = forward_time.ms();
  const int64_t pairs = bench::visible_pairs(attend_options.mask, b.q_len, b.kv_len);
  result.gflop_per_s = {
      bench::giga_per_s(bench::backward_flop(b.q_heads, b.head_dim, b.v_head_dim, pairs),
                        backward_time),
      ceilings.gflop_per_s()};
  result.gemm = in_tiles ? DType::bf16 : DType::f32;
  result.peak_gflop_per_s = ceilings.peak_gflop_per_s();
  const bench::Timing* const timed = &backward_time;
  result.cpu_fraction = bench::cpu_fraction(std::span(&timed, 1), context.threads());
  result.repeats = turns.done();
  return result;
}

}  // namespace gqa
