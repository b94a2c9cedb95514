// The inside of a Context, for the layers that compute.
#pragma once

#include <array>
#include <cstdint>

#include "core/aligned_buffer.h"
#include "core/thread_pool.h"
#include "gqa/context.h"
#include "kernels/kernels.h"

namespace gqa {

/// Who uses a piece of scratch memory. A slot's content lasts until its owner's next call.
enum class Scratch {
  attend_shapes,
  attend_units,
  attend_merges,
  attend_threads,
  attend_partials,
  backward_shapes,
  backward_pages,
  backward_heads,
  backward_units,
  backward_rows,
  backward_progress,
  backward_dq,
  backward_dbias,
  backward_threads,
  dense,
  activations,
  model_steps,
  model_items,
  kv_tokens,
  count
};

struct Context::Impl {
  ThreadPool pool;
  const kernels::Table* kernels;
  std::array<AlignedBuffer, static_cast<size_t>(Scratch::count)> buffers;

  Impl(int threads, const kernels::Table* table, bool pin = false)
      : pool(threads, pin), kernels(table) {}

  /// n uninitialised elements of a trivial type, aligned to a cache line.
  template <typename T>
  T* scratch(Scratch slot, int64_t n) {
    const auto bytes = checked_mul(n, static_cast<int64_t>(sizeof(T)));
    if (!bytes) fail(ErrorKind::resources, "scratch of {} elements does not fit", n);
    return static_cast<T*>(buffers[static_cast<size_t>(slot)].reserve(*bytes));
  }
};

}  // namespace gqa
