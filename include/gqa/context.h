// What a computation runs on: threads, an instruction set, scratch memory.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gqa {
#pragma GCC visibility push(default)

struct ContextOptions {
  int threads = 0;       ///< 0: default_threads()
  std::string isa = {};  ///< one of available_isas(); empty: the best
  /// For measuring: each thread stays on a core of its own, one hardware thread of each physical
  /// core first. The thread that makes the Context is one of them, as long as the Context lives.
  bool pin = false;
};

/// Owns a thread pool, the kernels of one instruction set, and scratch memory that only grows: a
/// steady state allocates nothing. Results do not depend on the number of threads.
/// Thread-safety: a Context serves one call at a time; make one per thread that calls.
class Context {
 public:
  /// Throws Error (usage) for a thread count below 0 or above 1024, or an instruction set that this
  /// machine lacks.
  explicit Context(const ContextOptions& options = {});
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int threads() const;
  /// The instruction set whose kernels run, e.g. "avx512".
  std::string_view isa() const;

  struct [[gnu::visibility("hidden")]] Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// The instruction sets that were compiled in and that this machine has, best first.
std::vector<std::string> available_isas();

/// The cores that affinity and cgroup allow, at least 1.
int default_threads();

#pragma GCC visibility pop
}  // namespace gqa
