// The ceiling of what tiles multiply: the best bf16 GEMM at hand.
#pragma once

#include <cstdint>
#include <memory>

#include "bench/sgemm.h"
#include "core/thread_pool.h"

namespace gqa::bench {

/// c = a b, of the size of Sgemm, bf16 with sums in f32, by oneDNN, b in the layout that it likes
/// best.
class Bf16Gemm {
 public:
  static constexpr int64_t size = Sgemm::size;

  /// Throws Error (resources) where oneDNN has no bf16 for this processor.
  explicit Bf16Gemm(int threads);
  ~Bf16Gemm();
  /// Each thread of a pool of so many computes a tile of c by itself, as in Sgemm.
  void run(ThreadPool& pool);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gqa::bench
