#include "core/thread_pool.h"

namespace gqa {
namespace {

/// Waits until `value` is no longer `old`: spins for a moment, since loops follow each other
/// closely, then sleeps.
template <typename T>
void wait_for_change(const std::atomic<T>& value, T old) {
  for (int i = 0; i < 2000; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  workers_.reserve(static_cast<size_t>(n_threads) - 1);
  for (int t = 1; t < n_threads; ++t) workers_.emplace_back([this, t] { work(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    wait_for_change(epoch_, seen);
    ++seen;  // the caller waits for every worker before it starts the next loop
    if (stop_) return;
    take(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

void ThreadPool::take(int thread) {
  try {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;) {
      call_(body_, i, thread);
    }
  } catch (...) {
    const std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::current_exception();
    next_.store(n_, std::memory_order_relaxed);
  }
}

void ThreadPool::run(int64_t n, Call call, void* body) {
  if (n <= 1 || workers_.empty()) {
    for (int64_t i = 0; i < n; ++i) call(body, i, 0);
    return;
  }
  call_ = call;
  body_ = body;
  n_ = n;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  take(0);
  for (int left; (left = busy_.load(std::memory_order_acquire)) != 0;) wait_for_change(busy_, left);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace gqa
