// The ceiling of what tiles multiply: the best bf16 GEMM at hand.
#pragma once

#include <cstdint>
#include <memory>

#include "bench/sgemm.h"
#include "core/thread_pool.h"

namespace gqa::bench {

/// c = a b, all [size, size] of bf16 with sums in f32, by oneDNN, b in the layout that it likes
/// best.
class Bf16Gemm {
 public:
  /// Throws Error (resources) where oneDNN has no bf16 for this processor.
  Bf16Gemm(int threads, int64_t size);
  ~Bf16Gemm();
  /// Each thread of a pool of so many computes a tile of c by itself, as in Sgemm.
  void run(ThreadPool& pool);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gqa::bench
