// One way of attention, behind Approximation.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "approx/call.h"

namespace gqa {

/// Adds up what a variant reads.
class Tally {
 public:
  /// A token sees `visible` keys of a KV head and has read `read` of them; choosing took
  /// `other_bytes`.
  void add(const Call& call, int64_t visible, int64_t read, double other_bytes) {
    const auto bytes = static_cast<double>(call.token_bytes());
    stats_.tokens += 1;
    stats_.keys_visible += static_cast<double>(visible);
    stats_.keys_read += static_cast<double>(read);
    stats_.bytes_visible += static_cast<double>(visible) * bytes;
    stats_.bytes_read += static_cast<double>(read) * bytes + other_bytes;
  }

  /// One choice of n: pages, keys, groups.
  void chose(int64_t n) {
    if (!stats_.chosen) stats_.chosen = {.mean = 0, .min = n, .max = n};
    ApproxStats::Chosen& chosen = *stats_.chosen;
    chosen.min = std::min(chosen.min, n);
    chosen.max = std::max(chosen.max, n);
    choices_ += 1;
    chosen.mean += (static_cast<double>(n) - chosen.mean) / choices_;
  }

  template <typename F>
  void select(const F& f) {
    time(stats_.select_seconds, f);
  }
  template <typename F>
  void attend(const F& f) {
    time(stats_.attend_seconds, f);
  }

  const ApproxStats& stats() const { return stats_; }

 private:
  template <typename F>
  static void time(double& seconds, const F& f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  ApproxStats stats_;
  double choices_ = 0;
};

class Variant {
 public:
  virtual ~Variant() = default;
  virtual void attend(const Call& call, Tally& tally) = 0;
  /// Of what is kept between calls.
  virtual int64_t memory_bytes() const { return 0; }
};

/// The variant of a spec that is more than a mask. Throws Error (usage) where it does not fit the
/// shape.
std::unique_ptr<Variant> make_variant(const AttentionSpec& spec, const KvShape& shape,
                                      KeyDirections directions);

}  // namespace gqa
