// What turns of several calls come to: times, and outputs beside those that they should be.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "bench/timing.h"
#include "core/half.h"
#include "gqa/view.h"

namespace gqa::bench {

/// One time for each turn: the mean of its calls.
class TurnTiming {
 public:
  template <typename Body>
  void time(const Body& body) {
    calls_.time(body);
    ++count_;
  }
  void end_turn() {
    const double now = calls_.wall_seconds();
    means_.push_back((now - before_) / count_);
    before_ = now;
    count_ = 0;
  }
  void clear() { *this = {}; }
  const Timing& calls() const { return calls_; }
  BenchTimes ms() const { return summary_ms(means_); }
  double giga_per_s(double units) const { return units / median(means_) * 1e-9; }

 private:
  Timing calls_;
  std::vector<double> means_;
  double before_ = 0;
  int count_ = 0;
};

/// The difference of outputs from what they should be.
class OutputError {
 public:
  void add(const AnyMutView<3>& out, const AnyMutView<3>& exact) {
    const int64_t n = exact.shape[0] * exact.shape[1] * exact.shape[2];
    for (int64_t i = 0; i < n; ++i) {
      const double x = load_element(exact.data, exact.dtype, i);
      const double d = load_element(out.data, out.dtype, i) - x;
      difference_ += d * d;
      norm_ += x * x;
    }
  }
  double value() const { return norm_ > 0 ? std::sqrt(difference_ / norm_) : 0; }

 private:
  double difference_ = 0;
  double norm_ = 0;
};

}  // namespace gqa::bench
