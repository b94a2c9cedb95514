// Options: what every verb takes, and how values are read.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "gqa/attention_spec.h"
#include "gqa/context.h"
#include "gqa/dtype.h"

namespace gqa::cli {

/// What every verb takes.
struct Common {
  bool json = false;
  bool quiet = false;
  int threads = 0;
  std::string isa;

  ContextOptions context() const { return {.threads = threads, .isa = isa}; }
};

/// Declares --json, --quiet, --threads and --isa.
void add_common(Command& verb, Common& common);

/// Declares an option without a value.
Option& add_flag(Command& verb, std::string_view name, bool& value, std::string_view description);

/// Declares an option with one value, which `set` reads or refuses (Error, usage). Placeholders
/// FILE and DIR say that it names one.
Option& add_value(Command& verb, std::string_view name, std::string_view placeholder,
                  std::string_view description, std::function<void(const std::string& value)> set);

/// Declares a positional argument or an option that must be given.
Option& add_required(Command& verb, const std::string& name, std::string& value,
                     std::string_view placeholder, std::string_view description);

/// Declares the positional argument MODEL.
void add_model(Command& verb, std::string& value);

/// Declares an option whose values are storage types.
void add_dtype(Command& verb, const std::string& name, std::optional<DType>& value,
               std::string_view description);

/// Declares --kv-dtype, the type of a KV cache.
void add_kv_dtype(Command& verb, std::optional<KvDType>& value,
                  const std::string& by_default = "that of 16-bit weights, else f32");

/// Declares --weight-dtype, what the matrices of a model are multiplied as.
void add_weight_dtype(Command& verb, WeightDType& value);

/// Declares --attention, a spec as parse_attention() reads it.
void add_attention(Command& verb, AttentionSpec& value);

// Values. Each throws Error (usage) that names the option, what is expected and what came.

[[noreturn]] void refuse(const std::string& option, const std::string& expected,
                         const std::string& value);
/// "f32, f16 or bf16"
std::string one_of(const std::vector<std::string>& names);
int64_t parse_integer(const std::string& option, const std::string& value, int64_t low,
                      int64_t high);
uint64_t parse_seed(const std::string& option, const std::string& value);
/// A finite number.
float parse_real(const std::string& option, const std::string& value);
/// Above 0, at most 1.
double parse_ratio(const std::string& option, const std::string& value);
/// "5GB", "500MB", "1GiB" or plain bytes; at least 1.
int64_t parse_bytes(const std::string& option, const std::string& value);

/// Declares an option whose value is a whole number.
template <typename Number>
void add_number(Command& verb, const std::string& name, Number& value, int64_t low, int64_t high,
                std::string_view description) {
  add_value(verb, name, "N", description, [&value, name, low, high](const std::string& given) {
    value = static_cast<Number>(parse_integer(name, given, low, high));
  });
}

}  // namespace gqa::cli
