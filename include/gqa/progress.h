// How long-running work reports what it has done.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace gqa {
#pragma GCC visibility push(default)

/// Called now and then from the thread that called the library: `done` of `total` units of `what`,
/// a phase of the work ("refine"), perhaps with a colon and the place in it ("refine: layer 3 of 6,
/// step 240 of 600"). Phases may take turns, each going on where it was. May be empty. May throw
/// (an Error of kind interrupted, say): the work then stops, leaves nothing half-written, and the
/// exception reaches the caller.
using Progress = std::function<void(std::string_view what, int64_t done, int64_t total)>;

#pragma GCC visibility pop
}  // namespace gqa
