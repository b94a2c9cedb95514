// The ceiling of all f32 arithmetic.
#pragma once

#include <cstdint>

#include "core/thread_pool.h"

namespace gqa::bench {

/// Each thread multiplies and adds in registers alone: 2 operations an element. Returns how many
/// operations all threads did together.
double multiply_add(ThreadPool& pool);

}  // namespace gqa::bench
