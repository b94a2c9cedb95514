// Tests that run once for each instruction set: TEST_P(Isa, ...), whose parameter is its name.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "gqa/context.h"

namespace gqa {
namespace {

class Isa : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, Isa, ::testing::ValuesIn(available_isas()),
                         [](const auto& isa) { return isa.param; });

}  // namespace
}  // namespace gqa
