#include "io/rope_config.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "io/json_value.h"

namespace gqa {
namespace {

constexpr double max_theta = 1e15;
constexpr double max_factor = 1e6;
constexpr int64_t max_size = int64_t{1} << 31;

/// The object that holds the parameters; the whole config where there is none. As in transformers,
/// the older field wins where both are given, and an empty object is as good as none.
JsonFields rope_object(const JsonFields& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.has(key) && !config.object(key).json().empty()) return config.object(key);
  }
  return config;
}

RopeConfig::Scaling read_scaling(const JsonFields& rope, const JsonFields& config) {
  using Scaling = RopeConfig::Scaling;
  if (&rope.json() == &config.json()) return Scaling::none;
  for (const auto& [key, value] : rope.json().items()) {
    if (!value.is_object()) continue;
    fail(ErrorKind::bad_data,
         "{}: parameters for a kind of layer are not supported: expected one set", rope.where(key));
  }
  const char* key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.maybe_string(key).value_or("default");
  if (type == "default") return Scaling::none;
  if (type == "linear") return Scaling::linear;
  if (type == "llama3") return Scaling::llama3;
  if (type == "yarn") return Scaling::yarn;
  if (type == "longrope") return Scaling::longrope;
  fail(ErrorKind::bad_data,
       "{}: RoPE scaling `{}` is not supported: expected default, linear, llama3, yarn or "
       "longrope",
       rope.where(key), type);
}

int64_t read_original_positions(const JsonFields& rope, const JsonFields& config,
                                int64_t max_positions) {
  constexpr const char* key = "original_max_position_embeddings";
  const JsonFields& from = config.has(key) ? config : rope;  // as in transformers
  return from.maybe_integer(key, 1, max_size).value_or(max_positions);
}

void read_llama3(const JsonFields& rope, RopeConfig& c) {
  c.factor = rope.number("factor", 1.0, max_factor);
  c.low_freq_factor = rope.number("low_freq_factor", 1e-6, max_factor);
  c.high_freq_factor = rope.number("high_freq_factor", 1e-6, max_factor);
  if (c.high_freq_factor > c.low_freq_factor) return;
  fail(ErrorKind::bad_data, "{}: expected more than low_freq_factor ({}), got {}",
       rope.where("high_freq_factor"), c.low_freq_factor, c.high_freq_factor);
}

/// Absent and 0 are the same.
double number_or(const JsonFields& rope, std::string_view key, double otherwise) {
  const double number = rope.maybe_number(key, 0.0, max_factor).value_or(0.0);
  return number == 0.0 ? otherwise : number;
}

double yarn_attention_factor(const JsonFields& rope, double factor) {
  const auto given = rope.maybe_number("attention_factor", 0.0, max_factor);
  if (given) return *given;
  const auto scale = [&](double mscale) {
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
  };
  const double mscale = number_or(rope, "mscale", 0.0);
  const double mscale_all_dim = number_or(rope, "mscale_all_dim", 0.0);
  if (mscale != 0.0 && mscale_all_dim != 0.0) return scale(mscale) / scale(mscale_all_dim);
  return scale(1.0);
}

void read_yarn(const JsonFields& rope, int64_t max_positions, RopeConfig& c) {
  const double ratio =
      static_cast<double>(max_positions) / static_cast<double>(c.original_positions);
  c.factor = rope.maybe_number("factor", 1.0, max_factor).value_or(ratio);
  if (c.factor < 1.0) {
    fail(ErrorKind::bad_data, "{}: expected at most max_position_embeddings ({}), got {}",
         rope.where("original_max_position_embeddings"), max_positions, c.original_positions);
  }
  c.beta_fast = number_or(rope, "beta_fast", 32.0);
  c.beta_slow = number_or(rope, "beta_slow", 1.0);
  if (c.beta_fast < c.beta_slow) {
    fail(ErrorKind::bad_data, "{}: expected at least beta_slow ({}), got {}",
         rope.where("beta_fast"), c.beta_slow, c.beta_fast);
  }
  c.truncate = rope.boolean("truncate", true);
  c.attention_factor = yarn_attention_factor(rope, c.factor);
  if (c.theta > 1.0) return;  // its planes are counted in logarithms of theta
  fail(ErrorKind::bad_data, "{}: expected more than 1, got {}", rope.where("rope_theta"), c.theta);
}

/// A factor for each plane.
std::vector<double> read_factors(const JsonFields& rope, std::string_view key, int64_t planes) {
  const Json& list = rope.get(key);
  constexpr double least = 1e-30;  // what f32 has room for, and more than any model asks
  constexpr double most = 1e30;
  const bool sound =
      list.is_array() && std::ssize(list) == planes &&
      std::ranges::all_of(list, [](const Json& factor) {
        return factor.is_number() && factor.get<double>() >= least && factor.get<double>() <= most;
      });
  if (!sound) {
    fail(ErrorKind::bad_data, "{}: expected {} numbers above 0, one for each plane, got {}",
         rope.where(key), planes, json_preview(list));
  }
  return list.get<std::vector<double>>();
}

/// As transformers: `factor` alone does not change frequencies.
void read_longrope(const JsonFields& rope, int64_t max_positions, int64_t planes, RopeConfig& c) {
  c.short_factors = read_factors(rope, "short_factor", planes);
  c.long_factors = read_factors(rope, "long_factor", planes);
  const auto original = static_cast<double>(c.original_positions);
  c.factor = rope.maybe_number("factor", 0.0, max_factor)
                 .value_or(static_cast<double>(max_positions) / original);
  c.attention_factor = rope.maybe_number("attention_factor", 0.0, max_factor);
  if (c.attention_factor) return;
  if (c.factor <= 1.0) {
    c.attention_factor = 1.0;
    return;
  }
  if (c.original_positions < 2) {
    fail(ErrorKind::bad_data,
         "{}: expected at least 2, as the attention factor divides by its logarithm, got {}",
         rope.where("original_max_position_embeddings"), c.original_positions);
  }
  c.attention_factor = std::sqrt(1.0 + std::log(c.factor) / std::log(original));
}

/// We rotate whole heads.
void check_partial(const JsonFields& fields) {
  constexpr const char* key = "partial_rotary_factor";
  const double share = fields.maybe_number(key, 0.0, 1.0).value_or(1.0);
  if (share == 1.0) return;
  fail(ErrorKind::bad_data, "{}: partial rotation is not supported: expected 1, got {}",
       fields.where(key), share);
}

}  // namespace

RopeConfig read_rope(const JsonFields& config, int64_t max_positions, int64_t head_dim) {
  const JsonFields rope = rope_object(config);
  check_partial(config);
  check_partial(rope);
  RopeConfig c;
  c.scaling = read_scaling(rope, config);
  const JsonFields& with_theta = rope.has("rope_theta") ? rope : config;
  c.theta = with_theta.maybe_number("rope_theta", 1.0, max_theta).value_or(c.theta);
  if (c.scaling == RopeConfig::Scaling::linear) {
    c.factor = rope.number("factor", 1.0, max_factor);
  } else if (c.scaling != RopeConfig::Scaling::none) {
    c.original_positions = read_original_positions(rope, config, max_positions);
    if (c.scaling == RopeConfig::Scaling::llama3) read_llama3(rope, c);
    if (c.scaling == RopeConfig::Scaling::yarn) read_yarn(rope, max_positions, c);
    if (c.scaling == RopeConfig::Scaling::longrope) {
      read_longrope(rope, max_positions, head_dim / 2, c);
    }
  }
  return c;
}

}  // namespace gqa
