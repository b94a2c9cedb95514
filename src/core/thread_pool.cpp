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

ThreadPool::ThreadPool(int n_threads, bool pin) {
  const std::vector<int> cores = pin ? usable_cores() : std::vector<int>();
  const auto settle = [cores](int thread) {
    if (!cores.empty()) pin_thread(cores[static_cast<size_t>(thread) % cores.size()]);
  };
  if (pin) caller_cores_.emplace();
  settle(0);
  workers_.reserve(static_cast<size_t>(n_threads) - 1);
  for (int t = 1; t < n_threads; ++t) {
    workers_.emplace_back([this, t, settle] {
      settle(t);
      work(t);
    });
  }
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
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_) return;
    if (!enter()) continue;  // too late: it is done
    take(thread);
    leave();
  }
}

bool ThreadPool::enter() {
  uint32_t inside = inside_.load(std::memory_order_relaxed);
  while ((inside & open) != 0) {
    if (inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acquire)) return true;
  }
  return false;
}

void ThreadPool::leave() {
  if (inside_.fetch_sub(1, std::memory_order_release) == 1) inside_.notify_one();
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
  inside_.store(open, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  take(0);
  uint32_t left = inside_.fetch_and(~open, std::memory_order_acquire) & ~open;
  for (; left != 0; left = inside_.load(std::memory_order_acquire)) wait_for_change(inside_, left);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace gqa
