// What the machine reaches at best, timed in turns with what is compared with it.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "bench/bf16_gemm.h"
#include "bench/multiply_add.h"
#include "bench/read_memory.h"
#include "bench/sgemm.h"
#include "bench/timing.h"

namespace gqa::bench {

class Ceilings {
 public:
  /// in_tiles: what is compared multiplies bf16 in tiles, so that GEMM does, too.
  Ceilings(ThreadPool& pool, const BenchOptions& options, bool in_tiles = false)
      : pool_(pool), sgemm_(pool, options.gemm_size) {
    if (in_tiles) bf16_gemm_.emplace(pool.n_threads(), options.gemm_size);
  }

  /// Arithmetic was timed for no longer than reading, and for `seconds` what is compared with it.
  /// It takes many times as long as either may, which are then timed several times for each of its.
  bool arithmetic_is_due(double seconds) const {
    return gemm_time_.wall_seconds() + peak_time_.wall_seconds() <=
           read_time_.wall_seconds() + seconds;
  }
  void time_arithmetic() {
    gemm_time_.time([&] { bf16_gemm_ ? bf16_gemm_->run(pool_) : sgemm_.run(pool_); });
    peak_time_.time([&] { peak_operations_ = multiply_add(pool_); });
  }
  /// Reads the pages of these keys.
  void time_reading(const PackedKv& kv, const std::vector<KeyRange>& keys) {
    pieces_.clear();
    for (const KeyRange& run : keys) append_pages(kv.layer(), run, pieces_);
    read_time_.time([&] { read_memory(pool_, pieces_); });
  }
  void clear() {
    for (auto* timing : {&read_time_, &gemm_time_, &peak_time_}) timing->clear();
  }

  double gb_per_s() const {
    return giga_per_s(static_cast<double>(total_bytes(pieces_)), read_time_);
  }
  /// Of SGEMM, or of the bf16 GEMM.
  double gflop_per_s() const { return giga_per_s(sgemm_.flop(), gemm_time_); }
  double peak_gflop_per_s() const { return giga_per_s(peak_operations_, peak_time_); }

 private:
  ThreadPool& pool_;
  Sgemm sgemm_;
  std::optional<Bf16Gemm> bf16_gemm_;
  Timing read_time_;
  Timing gemm_time_;
  Timing peak_time_;
  double peak_operations_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace gqa::bench
