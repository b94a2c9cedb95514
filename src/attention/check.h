// What attend() demands of its arguments.
#pragma once

#include <fmt/format.h>

#include <cstddef>

#include "attention/shape.h"

namespace gqa {

/// Which item of which call: how messages begin.
struct ItemName {
  const char* call;
  size_t item;
};

/// Throws Error (usage) for options that no item of the call could have.
void check_options(const char* call, const AttendOptions& options);

/// The shape of item i; throws Error (usage), naming the item, where something does not fit.
ItemShape check_item(const ItemName& i, const AttendItem& item, const AttendOptions& options);

}  // namespace gqa

template <>
struct fmt::formatter<gqa::ItemName> {
  constexpr auto parse(format_parse_context& context) { return context.begin(); }
  template <typename Context>
  auto format(const gqa::ItemName& name, Context& context) const {
    return fmt::format_to(context.out(), "{}: item {}", name.call, name.item);
  }
};
