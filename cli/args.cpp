#include "cli/args.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "gqa/error.h"

namespace gqa::cli {
namespace {

/// The number at the start of `text`, which moves past it; none where there is none or it does not
/// fit.
template <typename T>
std::optional<T> take_number(std::string_view& text) {
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

template <typename T>
std::optional<T> whole_number(std::string_view text) {
  const std::optional<T> number = take_number<T>(text);
  return text.empty() ? number : std::nullopt;
}

struct Unit {
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<Unit, 13> units{{{"", 1},
                                      {"B", 1},
                                      {"K", 1'000},
                                      {"KB", 1'000},
                                      {"M", 1'000'000},
                                      {"MB", 1'000'000},
                                      {"G", 1'000'000'000},
                                      {"GB", 1'000'000'000},
                                      {"TB", 1'000'000'000'000},
                                      {"KIB", int64_t{1} << 10},
                                      {"MIB", int64_t{1} << 20},
                                      {"GIB", int64_t{1} << 30},
                                      {"TIB", int64_t{1} << 40}}};

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return result;
}

const std::vector<std::string> dtypes{"f32", "f16", "bf16"};
const std::vector<std::string> kv_dtypes{"f32", "f16", "bf16", "int8", "int4"};
const std::vector<std::string> weight_dtypes{"stored", "int8"};

}  // namespace

void refuse(const std::string& option, const std::string& expected, const std::string& value) {
  throw Error(ErrorKind::usage, fmt::format("{}: expected {}, got '{}'", option, expected, value));
}

std::string one_of(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    text += (i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + names[i];
  }
  return text;
}

int64_t parse_integer(const std::string& option, const std::string& value, int64_t low,
                      int64_t high) {
  const auto number = whole_number<int64_t>(value);
  if (!number || *number < low || *number > high) {
    const bool bounded = high != INT64_MAX;
    refuse(option,
           bounded ? fmt::format("a whole number from {} to {}", low, high)
                   : fmt::format("a whole number of at least {}", low),
           value);
  }
  return *number;
}

uint64_t parse_seed(const std::string& option, const std::string& value) {
  const auto number = whole_number<uint64_t>(value);
  if (!number) refuse(option, "a whole number from 0 to 18446744073709551615", value);
  return *number;
}

float parse_real(const std::string& option, const std::string& value) {
  const auto number = whole_number<float>(value);
  if (!number || !std::isfinite(*number)) refuse(option, "a number", value);
  return *number;
}

double parse_ratio(const std::string& option, const std::string& value) {
  const auto number = whole_number<double>(value);
  const bool fits = number && *number > 0 && *number <= 1;
  if (!fits) refuse(option, "a number above 0 and at most 1", value);
  return *number;
}

int64_t parse_bytes(const std::string& option, const std::string& value) {
  std::string_view rest = value;
  const auto count = take_number<int64_t>(rest);
  const std::string name = upper(rest);
  const auto* unit =
      std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.name == name; });
  int64_t bytes = 0;
  if (!count || *count < 1 || unit == units.end() ||
      __builtin_mul_overflow(*count, unit->bytes, &bytes)) {
    refuse(option, "a size such as 5GB, 500MB, 1GiB or plain bytes", value);
  }
  return bytes;
}

Option& add_flag(Command& verb, std::string_view name, bool& value, std::string_view description) {
  Option& option = verb.options.emplace_back();
  option.name = name;
  option.description = description;
  option.flag = &value;
  return option;
}

Option& add_value(Command& verb, std::string_view name, std::string_view placeholder,
                  std::string_view description, std::function<void(const std::string& value)> set) {
  Option& option = verb.options.emplace_back();
  option.name = name;
  option.placeholder = placeholder;
  option.description = description;
  option.set = std::move(set);
  if (placeholder == "FILE") option.paths = Paths::files;
  if (placeholder == "DIR") option.paths = Paths::folders;
  return option;
}

Option& add_required(Command& verb, const std::string& name, std::string& value,
                     std::string_view placeholder, std::string_view description) {
  const auto set = [&value, name](const std::string& given) {
    if (given.empty()) throw Error(ErrorKind::usage, name + " is empty");
    value = given;
  };
  Option& option = add_value(verb, name, placeholder, description, set);
  option.required = true;
  return option;
}

void add_model(Command& verb, std::string& value) {
  add_required(verb, "MODEL", value, "DIR", "Model folder (Hugging Face layout, safetensors)");
}

void add_dtype(Command& verb, const std::string& name, std::optional<DType>& value,
               std::string_view description) {
  add_value(verb, name, "TYPE", description, [&value, name](const std::string& given) {
    value = parse_dtype(given);
    if (!value) refuse(name, one_of(dtypes), given);
  }).forms = dtypes;
}

void add_kv_dtype(Command& verb, std::optional<KvDType>& value, const std::string& by_default) {
  add_value(verb, "--kv-dtype", "TYPE",
            fmt::format("Type of the KV cache: {};\ndefault: {}", one_of(kv_dtypes), by_default),
            [&value](const std::string& given) {
              value = parse_kv_dtype(given);
              if (!value) refuse("--kv-dtype", one_of(kv_dtypes), given);
            })
      .forms = kv_dtypes;
}

void add_weight_dtype(Command& verb, WeightDType& value) {
  add_value(
      verb, "--weight-dtype", "TYPE",
      "Type of the model's matrices: stored, or int8 (quantised when loaded);\ndefault: stored",
      [&value](const std::string& given) {
        const auto type = parse_weight_dtype(given);
        if (!type) refuse("--weight-dtype", one_of(weight_dtypes), given);
        value = *type;
      })
      .forms = weight_dtypes;
}

void add_attention(Command& verb, AttentionSpec& value) {
  add_value(verb, "--attention", "SPEC",
            "exact, block:B, window:W, clustered:C[,PAGES], global-local:W,B,\ntopk:P, topp:MASS, "
            "lowrank:R[,KEYS] or dynamic:LOSS; default: exact",
            [&value](const std::string& given) {
              try {
                value = parse_attention(given);
              } catch (const Error& error) {
                throw Error(error.kind(), fmt::format("--attention: {}", error.what()));
              }
            })
      .forms = {
      "exact",  "block:B",   "window:W",         "clustered:C[,PAGES]", "global-local:W,B",
      "topk:P", "topp:MASS", "lowrank:R[,KEYS]", "dynamic:LOSS"};
}

void add_common(Command& verb, Common& common) {
  const std::string group = "Common options";
  add_flag(verb, "--json", common.json, "Print one JSON object").group = group;
  add_flag(verb, "--quiet", common.quiet, "No messages and no progress, errors only").group = group;
  add_value(verb, "--threads", "N", "Threads; default: the cores that this process may use",
            [&common](const std::string& value) {
              common.threads = static_cast<int>(parse_integer("--threads", value, 1, 1024));
            })
      .group = group;
  add_value(verb, "--isa", "NAME",
            "Instruction set, one that `gqa doctor` lists; default: the best",
            [&common](const std::string& value) {
              const std::vector<std::string> names = available_isas();
              if (std::find(names.begin(), names.end(), value) == names.end()) {
                refuse("--isa", fmt::format("one of {}", fmt::join(names, ", ")), value);
              }
              common.isa = value;
            })
      .group = group;
}

}  // namespace gqa::cli
