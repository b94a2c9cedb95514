// Threads that run the iterations of a loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/affinity.h"

namespace gqa {

/// Runs loops over n_threads threads, the caller's among them. Allocates nothing after
/// construction. Thread-safety: one loop at a time; loops do not nest.
class ThreadPool {
 public:
  /// pin: each thread stays on a core of its own, as far as there are enough; the caller's until
  /// the pool goes.
  explicit ThreadPool(int n_threads, bool pin = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// body(index, thread) for every index in [0, n), in any order; thread is in [0, n_threads).
  /// Returns when all are done; rethrows the first exception of a body.
  template <typename Body>
  void parallel_for(int64_t n, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(
        n, [](void* b, int64_t index, int thread) { (*static_cast<Plain*>(b))(index, thread); },
        const_cast<std::remove_const_t<Plain>*>(&body));
  }

 private:
  using Call = void (*)(void* body, int64_t index, int thread);

  void run(int64_t n, Call call, void* body);
  void work(int thread);
  void take(int thread);
  bool enter();
  void leave();

  static constexpr uint32_t open = uint32_t{1} << 31;

  std::optional<AffinityGuard> caller_cores_;
  std::vector<std::thread> workers_;
  // The loop at hand. Written by the caller while no worker is inside, read by those inside.
  Call call_ = nullptr;
  void* body_ = nullptr;
  int64_t n_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<uint32_t> epoch_{0};  ///< counts loops: what idle workers wait for
  /// Workers inside the loop, and `open` while more may enter. So the caller waits for those that
  /// came, and never for one that some other program keeps from its core.
  std::atomic<uint32_t> inside_{0};
  std::atomic<bool> stop_{false};
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

}  // namespace gqa
