// A config.json to change, field by field.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "gqa/config.h"
#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"

namespace gqa {

class Config : public testing::Test {
 protected:
  /// The smallest sound config with some fields set anew; those set to "ABSENT" are left out.
  ModelConfig load(const Json& changes, std::string_view generation = {}) const {
    Json json = {{"model_type", "llama"},    {"num_hidden_layers", 3},   {"hidden_size", 64},
                 {"intermediate_size", 100}, {"num_attention_heads", 8}, {"vocab_size", 300}};
    for (const auto& [key, value] : changes.items()) {
      if (value == "ABSENT") {
        json.erase(key);
      } else {
        json[key] = value;
      }
    }
    test::put_file(dir_ / "config.json", json.dump());
    std::filesystem::remove(dir_ / "generation_config.json");
    if (!generation.empty()) test::put_file(dir_ / "generation_config.json", generation);
    return load_config(dir_.path());
  }
  void expect_bad(const Json& changes, std::initializer_list<std::string_view> words) const {
    const std::string message =
        test::expect_error(ErrorKind::bad_data, words, [&] { load(changes); });
    EXPECT_NE(message.find((dir_ / "config.json").string()), std::string::npos) << message;
  }

  const test::TempDir dir_;
};

}  // namespace gqa
