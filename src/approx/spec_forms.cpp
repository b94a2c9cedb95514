#include "approx/spec_forms.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <limits>
#include <type_traits>

namespace gqa {
namespace {

using Values = std::span<const double>;
using Parameter = SpecParameter;

int64_t count(double value) { return static_cast<int64_t>(value); }

constexpr std::array block{Parameter{.name = "B", .example = 64}};
constexpr std::array window{Parameter{.name = "W", .example = 256}};
constexpr std::array clustered{Parameter{.name = "C", .example = 32},
                               Parameter{.name = "PAGES", .least = 0, .optional = true}};
constexpr std::array global_local{Parameter{.name = "W", .example = 256},
                                  Parameter{.name = "B", .example = 64}};
constexpr std::array top_pages{Parameter{.name = "P", .example = 16}};
constexpr std::array top_mass{Parameter{
    .name = "MASS", .whole = false, .least = 0, .above_least = true, .most = 1, .example = 0.95}};
constexpr std::array low_rank{Parameter{.name = "R", .example = 8},
                              Parameter{.name = "KEYS", .optional = true}};
constexpr std::array dynamic{Parameter{.name = "LOSS",
                                       .whole = false,
                                       .least = 0,
                                       .most = std::numeric_limits<double>::max(),
                                       .example = 0.01}};

constexpr std::array forms{
    SpecForm{"exact", {}, [](Values) -> AttentionSpec { return ExactAttention{}; }},
    SpecForm{"block", block, [](Values v) -> AttentionSpec { return BlockLocal{count(v[0])}; }},
    SpecForm{"window", window,
             [](Values v) -> AttentionSpec { return SlidingWindow{count(v[0])}; }},
    SpecForm{"clustered", clustered,
             [](Values v) -> AttentionSpec {
               return Clustered{count(v[0]), v.size() > 1 ? count(v[1]) : 0};
             }},
    SpecForm{"global-local", global_local,
             [](Values v) -> AttentionSpec {
               return GlobalLocal{count(v[0]), count(v[1])};
             }},
    SpecForm{"topk", top_pages, [](Values v) -> AttentionSpec { return TopPages{count(v[0])}; }},
    SpecForm{"topp", top_mass, [](Values v) -> AttentionSpec { return TopMass{v[0]}; }},
    SpecForm{"lowrank", low_rank,
             [](Values v) -> AttentionSpec {
               LowRank spec{count(v[0])};
               if (v.size() > 1) spec.keys = count(v[1]);
               return spec;
             }},
    SpecForm{"dynamic", dynamic, [](Values v) -> AttentionSpec { return DynamicGroups{v[0]}; }},
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// All of a text as a number without a sign; none where it is no such number.
template <typename T>
std::optional<double> read(std::string_view text) {
  // from_chars alone would take "inf", "nan" and "-0".
  if (text.empty() || (!is_digit(text[0]) && text[0] != '.')) return std::nullopt;
  T number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (stop != end) return std::nullopt;
  if (error == std::errc()) return static_cast<double>(number);
  // A whole number can only be too large, a real one also too small.
  if (std::is_integral_v<T>) return std::numeric_limits<double>::infinity();
  return std::nullopt;
}

bool in_range(const Parameter& parameter, double value) {
  return (parameter.above_least ? value > parameter.least : value >= parameter.least) &&
         value <= parameter.most;
}

}  // namespace

std::span<const SpecForm> spec_forms() { return forms; }

std::string SpecParameter::range_text() const {
  const std::string low = fmt::format("{} {}", above_least ? "above" : "at least", least);
  // Limits that nobody reaches are named where something is above them.
  return most < largest_count ? fmt::format("{} and at most {}", low, most) : low;
}

std::string spec_grammar() {
  std::string grammar;
  for (const SpecForm& form : forms) {
    grammar += grammar.empty() ? "" : " | ";
    grammar += form.name;
    char separator = ':';
    for (const Parameter& parameter : form.parameters) {
      grammar += fmt::format(fmt::runtime(parameter.optional ? "[{}{}]" : "{}{}"), separator,
                             parameter.name);
      separator = ',';
    }
  }
  return grammar;
}

SpecNumber read_spec_number(const SpecParameter& parameter, std::string_view text) {
  const auto value = parameter.whole ? read<int64_t>(text) : read<double>(text);
  if (!value) {
    return {.problem =
                fmt::format("{} is '{}', expected a {}, {}", parameter.name, text,
                            parameter.whole ? "whole number" : "number", parameter.range_text())};
  }
  if (!in_range(parameter, *value)) {
    return {.problem =
                fmt::format("{} is {}, expected {}", parameter.name, text,
                            *value > parameter.most ? fmt::format("at most {}", parameter.most)
                                                    : parameter.range_text())};
  }
  return {.value = value};
}

SpecParts split_spec(std::string_view text) {
  const size_t colon = text.find(':');
  SpecParts parts{text.substr(0, colon)};
  if (colon == text.npos) return parts;
  std::string_view rest = text.substr(colon + 1);
  for (size_t comma = 0; comma != rest.npos; rest.remove_prefix(comma + 1)) {
    comma = rest.find(',');
    parts.numbers.push_back(rest.substr(0, comma));
    if (comma == rest.npos) break;
  }
  return parts;
}

}  // namespace gqa
