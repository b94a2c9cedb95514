// Options: what every verb takes, and how values are read.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

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
void add_common(CLI::App& verb, Common& common);

/// Declares an option with one value, which `set` reads or refuses (Error, usage). The value
/// reaches `set` as it was typed, empty or not.
CLI::Option* add_value(CLI::App& verb, const std::string& name, const std::string& placeholder,
                       const std::string& description,
                       std::function<void(const std::string& value)> set);

/// Declares a positional argument or an option that must be given.
void add_required(CLI::App& verb, const std::string& name, std::string& value,
                  const std::string& placeholder, const std::string& description);

/// Declares the positional argument MODEL.
void add_model(CLI::App& verb, std::string& value);

/// Declares an option whose values are storage types.
CLI::Option* add_dtype(CLI::App& verb, const std::string& name, std::optional<DType>& value,
                       const std::string& description);

/// Declares --kv-dtype, the type of a KV cache.
void add_kv_dtype(CLI::App& verb, std::optional<KvDType>& value,
                  const std::string& by_default = "that of 16-bit weights, else f32");

/// Declares --weight-dtype, what the matrices of a model are multiplied as.
void add_weight_dtype(CLI::App& verb, WeightDType& value);

/// Declares --attention, a spec as parse_attention() reads it.
void add_attention(CLI::App& verb, AttentionSpec& value);

// Values. Each throws Error (usage) that names the option, what is expected and what came.

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
void add_number(CLI::App& verb, const std::string& name, Number& value, int64_t low, int64_t high,
                const std::string& description) {
  add_value(verb, name, "N", description, [&value, name, low, high](const std::string& given) {
    value = static_cast<Number>(parse_integer(name, given, low, high));
  });
}

}  // namespace gqa::cli
