// Counts what operator new is asked for. Included by one file of a test program: it replaces the
// operators of all of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

static std::atomic<int64_t> allocations{0};

[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace gqa::test {

/// Allocations that f makes.
template <typename F>
int64_t count_allocations(const F& f) {
  const int64_t before = allocations;
  f();
  return allocations - before;
}

}  // namespace gqa::test
