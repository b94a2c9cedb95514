// Wall and CPU time of things that are timed in turns.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gqa/bench.h"
#include "gqa/progress.h"

namespace gqa::bench {

/// The middle one, or the mean of the two in the middle; at least one number.
double median(std::vector<double> numbers);

/// Median, least and most of at least one time, in seconds.
BenchTimes summary_ms(std::span<const double> seconds);

/// The times of one thing.
class Timing {
 public:
  template <typename Body>
  void time(const Body& body) {
    const Now start;
    body();
    const Now end;
    seconds_.push_back(end.wall - start.wall);
    wall_seconds_ += seconds_.back();
    cpu_seconds_ += end.cpu - start.cpu;
  }

  /// Forgets: the turn that warms up does not count.
  void clear() {
    seconds_.clear();
    wall_seconds_ = cpu_seconds_ = 0;
  }

  BenchTimes ms() const { return summary_ms(seconds_); }
  /// Of the last time, of which there is one.
  double last_seconds() const { return seconds_.back(); }
  double median_seconds() const { return median(seconds_); }
  double wall_seconds() const { return wall_seconds_; }
  /// Of the whole process.
  double cpu_seconds() const { return cpu_seconds_; }

 private:
  struct Now {
    double wall;
    double cpu;
    Now();
  };

  std::vector<double> seconds_;
  double wall_seconds_ = 0;  ///< their sum, which turns ask for
  double cpu_seconds_ = 0;
};

/// CPU time of several things over their wall time and the threads, at most 1.
double cpu_fraction(std::span<const Timing* const> timings, int threads);

/// What `units` (bytes, operations) a call are in 10^9 a second.
inline double giga_per_s(double units, const Timing& timing) {
  return units / timing.median_seconds() * 1e-9;
}

/// `while (turns.next())` counts repetitions: so many, or with 0 at least 5 and at most 100 for as
/// long as two seconds are not over. Reports progress ("measure").
class Turns {
 public:
  Turns(int repeats, const Progress& progress);
  bool next();
  /// Between the parts of a repetition, so that the caller can stop it.
  void report() const;
  int done() const { return done_; }

 private:
  double share() const;

  int repeats_;
  const Progress& progress_;
  int done_ = -1;
  double start_;
};

}  // namespace gqa::bench
