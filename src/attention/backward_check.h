// What attend_backward() demands of its arguments.
#pragma once

#include <cstdint>
#include <span>

#include "attention/check.h"
#include "attention/shape.h"
#include "gqa/attention_backward.h"

namespace gqa {

/// The shape of item i; throws Error (usage), naming the item, where something does not fit.
/// pages: scratch [number of the item's pages].
ItemShape check_backward_item(const ItemName& i, const AttendBackwardItem& item,
                              const AttendOptions& options, int32_t* pages);

/// Throws Error (usage) where dsinks are wanted that no shape has.
void check_dsinks(std::span<const ItemShape> shapes, const AttendOptions& options,
                  std::span<const float> dsinks);

}  // namespace gqa
