// What attend() demands of its arguments.
#pragma once

#include <cstddef>

#include "attention/shape.h"

namespace gqa {

/// Throws Error (usage) for options that no item could have.
void check_options(const AttendOptions& options);

/// The shape of item i; throws Error (usage), naming the item, where something does not fit.
ItemShape check_item(size_t i, const AttendItem& item, const AttendOptions& options);

}  // namespace gqa
