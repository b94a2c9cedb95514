// Groups that a person or a recipe gives.
#include <algorithm>
#include <optional>

#include "convert/grouping.h"
#include "core/fail.h"
#include "io/json_value.h"

namespace gqa {
namespace {

/// What is wrong with the number or the sizes of groups of `heads` KV heads, if anything.
std::optional<std::string> size_problem(const HeadGroups& groups, int64_t heads,
                                        const ConvertOptions& options) {
  const int64_t n = std::ssize(groups);
  if (options.kv_heads != 0 && n != options.kv_heads) {
    return fmt::format("{} groups, expected {}", n, options.kv_heads);
  }
  if (n == 0) return "0 groups, expected at least 1";
  for (int64_t g = 0; g < n; ++g) {
    if (groups[g].empty()) return fmt::format("group {} is empty", g);
    const bool fits = heads % n == 0 && std::ssize(groups[g]) == heads / n;
    if (fits || options.unequal) continue;
    const std::string expected = heads % n == 0 ? fmt::format(", expected {}", heads / n) : "";
    return fmt::format(
        "group {} has {} heads{} ({} KV heads in {} groups): unequal groups have to be asked for "
        "(--unequal)",
        g, groups[g].size(), expected, heads, n);
  }
  return std::nullopt;
}

/// What keeps `groups` from parting heads 0 .. heads - 1, if anything.
std::optional<std::string> partition_problem(const HeadGroups& groups, int64_t heads) {
  std::vector<int64_t> group_of(heads, -1);
  for (int64_t g = 0; g < std::ssize(groups); ++g) {
    for (const int64_t head : groups[g]) {
      if (head < 0 || head >= heads) {
        return fmt::format("group {}: head {} is not one of 0 to {}", g, head, heads - 1);
      }
      if (group_of[head] >= 0) {
        return fmt::format("head {} is in group {} and again in group {}", head, group_of[head], g);
      }
      group_of[head] = g;
    }
  }
  const auto missing = std::ranges::find(group_of, -1);
  if (missing == group_of.end()) return std::nullopt;
  return fmt::format("head {} is in no group", missing - group_of.begin());
}

std::string shown(const Json& json) {
  std::string text = json.dump();
  if (text.size() > 40) text = text.substr(0, 37) + "...";
  return text;
}

int64_t parse_head(const Json& json, const std::string& where) {
  const bool fits = json.is_number_integer() &&
                    !(json.is_number_unsigned() && json.get<uint64_t>() > uint64_t{INT64_MAX});
  if (!fits) fail(ErrorKind::bad_data, "{}: expected a head's number, got {}", where, shown(json));
  return json.get<int64_t>();
}

HeadGroups parse_layer(const Json& json, const std::string& where) {
  if (!json.is_array()) {
    fail(ErrorKind::bad_data, "{}: expected a list of groups, got {}", where, shown(json));
  }
  HeadGroups groups;
  for (const Json& group : json) {
    const std::string at = fmt::format("{}: group {}", where, groups.size());
    if (!group.is_array()) {
      fail(ErrorKind::bad_data, "{}: expected a list of heads, got {}", at, shown(group));
    }
    groups.emplace_back();
    for (const Json& head : group) groups.back().push_back(parse_head(head, at));
  }
  return groups;
}

/// Three levels of lists: layers, groups, heads.
bool is_per_layer(const Json& json) {
  return !json.empty() && json[0].is_array() && !json[0].empty() && json[0][0].is_array();
}

}  // namespace

std::vector<HeadGroups> parse_groups(const Json& json, const std::string& where,
                                     const ModelConfig& config, const ConvertOptions& options) {
  std::vector<HeadGroups> layers;
  if (json.is_array() && is_per_layer(json)) {
    for (const Json& layer : json) {
      layers.push_back(parse_layer(layer, fmt::format("{}: layer {}", where, layers.size())));
    }
  } else {
    layers.assign(config.n_layers, parse_layer(json, where));
  }
  check_groups(layers, where, config, options, ErrorKind::bad_data);
  return layers;
}

void check_groups(std::span<const HeadGroups> layers, const std::string& where,
                  const ModelConfig& config, const ConvertOptions& options, ErrorKind kind) {
  if (static_cast<int64_t>(layers.size()) != config.n_layers) {
    fail(kind, "{}: groups of {} layers, expected {}", where, layers.size(), config.n_layers);
  }
  for (int64_t l = 0; l < config.n_layers; ++l) {
    auto problem = size_problem(layers[l], config.kv_heads[l], options);
    if (!problem) problem = partition_problem(layers[l], config.kv_heads[l]);
    if (problem) fail(kind, "{}: layer {}: {}", where, l, *problem);
  }
}

}  // namespace gqa
