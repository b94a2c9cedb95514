#include "bench/multiply_add.h"

#include <atomic>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/multiply_add.cpp"
#include "kernels/targets.h"
//
#include "hwy/foreach_target.h"
// This comes after foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Chains that do not wait for each other: more than two units of a latency of 5 can be busy with.
inline constexpr int kChains = 12;
inline constexpr int64_t kRounds = 20000;

/// Returns the number of operations. `zero` is 0, which the compiler must not know.
double MultiplyAdd(float zero, float& result) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const V factor = hn::Set(d, 0.5f + zero);
  V chain[kChains];
  HWY_UNROLL(12)
  for (int i = 0; i < kChains; ++i) chain[i] = hn::Set(d, static_cast<float>(i) + zero);
  for (int64_t round = 0; round < kRounds; ++round) {
    HWY_UNROLL(12)
    for (int i = 0; i < kChains; ++i) chain[i] = hn::MulAdd(chain[i], factor, factor);
  }
  V sum = chain[0];
  HWY_UNROLL(12)
  for (int i = 1; i < kChains; ++i) sum = hn::Add(sum, chain[i]);
  result = hn::GetLane(hn::SumOfLanes(d, sum));
  return 2.0 * kChains * static_cast<double>(kRounds) * static_cast<double>(hn::Lanes(d));
}

}  // namespace gqa::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gqa::bench {
namespace {

HWY_EXPORT(MultiplyAdd);

/// Enough work for each thread that they finish about together.
constexpr int64_t pieces_per_thread = 16;

}  // namespace

double multiply_add(ThreadPool& pool) {
  std::atomic<double> operations{0};
  std::atomic<float> zero{0};
  std::atomic<float> kept{0};
  pool.parallel_for(pieces_per_thread * pool.n_threads(), [&](int64_t, int) {
    float result = 0;
    operations += HWY_DYNAMIC_DISPATCH(MultiplyAdd)(zero.load(std::memory_order_relaxed), result);
    kept.store(result, std::memory_order_relaxed);
  });
  return operations.load();
}

}  // namespace gqa::bench
#endif  // HWY_ONCE
