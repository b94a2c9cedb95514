// What the machine reaches at best, timed in turns with what is compared with it.
#pragma once

#include <array>
#include <vector>

#include "bench/multiply_add.h"
#include "bench/read_memory.h"
#include "bench/sgemm.h"
#include "bench/timing.h"

namespace gqa::bench {

class Ceilings {
 public:
  explicit Ceilings(ThreadPool& pool) : pool_(pool) {}

  void time_arithmetic() {
    sgemm_time_.time([&] { sgemm_.run(pool_); });
    peak_time_.time([&] { peak_operations_ = multiply_add(pool_); });
  }
  /// Reads the pages of these keys.
  void time_reading(const PackedKv& kv, const std::vector<KeyRange>& keys) {
    pieces_.clear();
    for (const KeyRange& run : keys) append_pages(kv.layer(), run, pieces_);
    read_time_.time([&] { read_memory(pool_, pieces_); });
  }
  void clear() {
    for (auto* timing : {&read_time_, &sgemm_time_, &peak_time_}) timing->clear();
  }

  double gb_per_s() const {
    return giga_per_s(static_cast<double>(total_bytes(pieces_)), read_time_);
  }
  double gflop_per_s() const { return giga_per_s(Sgemm::flop, sgemm_time_); }
  double peak_gflop_per_s() const { return giga_per_s(peak_operations_, peak_time_); }

 private:
  ThreadPool& pool_;
  Sgemm sgemm_;
  Timing read_time_;
  Timing sgemm_time_;
  Timing peak_time_;
  double peak_operations_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace gqa::bench
