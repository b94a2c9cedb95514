// Tests that run once for each instruction set: TEST_P(Isa, ...), whose parameter is its name.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gqa/context.h"
#include "kernels/kernels.h"
#include "support/all_tables.h"

namespace gqa {
namespace {

/// Those that this machine has, and those that stand for others.
inline std::vector<std::string> tested_isas() {
  std::vector<std::string> names;
  for (const auto* table : test::all_tables()) names.emplace_back(table->isa);
  return names;
}

/// Those, and what attends in another order.
inline std::vector<std::string> attending_isas() {
  std::vector<std::string> names = tested_isas();
  names.emplace_back(kernels::stretches_table().isa);
  return names;
}

class Isa : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, Isa, ::testing::ValuesIn(attending_isas()),
                         [](const auto& isa) { return isa.param; });

}  // namespace
}  // namespace gqa
