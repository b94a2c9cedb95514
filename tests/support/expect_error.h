// What a failing call must say.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <initializer_list>
#include <string>
#include <string_view>

#include "gqa/error.h"

namespace gqa::test {

/// Expects that `call` throws a gqa::Error of this kind whose message holds every one of `words`.
/// Returns the message.
template <typename Call>
std::string expect_error(ErrorKind kind, std::initializer_list<std::string_view> words,
                         Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.exit_code(), static_cast<int>(kind)) << message;
    for (const auto word : words) {
      EXPECT_NE(message.find(word), std::string::npos)
          << "expected `" << word << "` in the message: " << message;
    }
    return message;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "expected a gqa::Error, got: " << error.what();
    return {};
  }
  ADD_FAILURE() << "expected an error of kind " << static_cast<int>(kind) << ", got none";
  return {};
}

}  // namespace gqa::test
