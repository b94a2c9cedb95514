// The forms that a spec of attention can have.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gqa/attention_spec.h"

namespace gqa {

/// No sequence has more tokens, so no number counts more; products of two still fit.
constexpr int64_t largest_count = int64_t{1} << 40;

/// A number of a form; whole ones are exact as doubles up to largest_count.
struct SpecParameter {
  std::string_view name;  ///< as the grammar calls it
  bool whole = true;
  double least = 1;
  bool above_least = false;  ///< `least` itself is out of range
  double most = largest_count;
  double example = 1;  ///< a sensible value
  bool optional = false;

  /// "at least 1", "above 0 and at most 1"
  std::string range_text() const;
};

struct SpecForm {
  std::string_view name;
  std::span<const SpecParameter> parameters;  ///< optional ones last
  AttentionSpec (*make)(std::span<const double> values);
};

std::span<const SpecForm> spec_forms();

/// "exact | block:B | ..."
std::string spec_grammar();

/// A parameter's value, or what is wrong with it.
struct SpecNumber {
  std::optional<double> value = {};
  std::string problem = {};  ///< "B is 0, expected at least 1"
};
SpecNumber read_spec_number(const SpecParameter& parameter, std::string_view text);

/// "topk", {"8"} of "topk:8".
struct SpecParts {
  std::string_view name;
  std::vector<std::string_view> numbers = {};
};
SpecParts split_spec(std::string_view text);

/// The spec closest to a text that is none.
AttentionSpec nearest_spec(std::string_view text);

}  // namespace gqa
