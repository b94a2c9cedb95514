#include "convert/grouping.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "convert/head_grouping.h"
#include "core/fail.h"
#include "core/random.h"
#include "io/json_value.h"

namespace gqa {
namespace {

constexpr std::string_view manual_name = "manual";
constexpr std::string_view manual_prefix = "manual:";

/// Cuts `heads` into groups of equal size, in order.
HeadGroups cut(std::span<const int64_t> heads, int64_t n_groups) {
  const int64_t size = static_cast<int64_t>(heads.size()) / n_groups;
  HeadGroups groups;
  for (int64_t g = 0; g < n_groups; ++g) {
    const auto part = heads.subspan(g * size, size);
    groups.emplace_back(part.begin(), part.end());
  }
  return groups;
}

std::vector<int64_t> heads_of(const GroupingInput& in) {
  std::vector<int64_t> heads(in.config.kv_heads[in.layer]);
  std::iota(heads.begin(), heads.end(), 0);
  return heads;
}

HeadGroups group_randomly(const GroupingInput& in) {
  std::vector<int64_t> heads = heads_of(in);
  Random random(in.seed, RandomUse::grouping, in.layer);
  for (size_t i = heads.size(); i > 1; --i) std::swap(heads[i - 1], heads[random.below(i)]);
  HeadGroups groups = cut(heads, in.kv_heads);
  for (auto& group : groups) std::sort(group.begin(), group.end());
  std::sort(groups.begin(), groups.end());
  return groups;
}

constexpr GroupingMethod methods[] = {
    {"neighbour", GroupSizes::equal, group_neighbours},
    {"random", GroupSizes::equal, group_randomly},
    {"similarity", GroupSizes::any, group_similar},
    {"kmeans", GroupSizes::any, group_clusters},
    {"key-driven", GroupSizes::unequal, group_by_importance},
    {"learned", GroupSizes::any, group_learned},
};

void check_sizes(const GroupingMethod& method, bool unequal) {
  require(!unequal || method.sizes != GroupSizes::equal,
          "grouping `{}` makes equal groups; unequal ones are made by similarity, kmeans, "
          "key-driven and learned, or given (manual:FILE)",
          method.name);
  require(unequal || method.sizes != GroupSizes::unequal,
          "grouping `{}` makes groups of different sizes: they have to be allowed (--unequal)",
          method.name);
}

/// Any number of unequal groups that each layer has heads for.
void check_unequal_kv_heads(const ModelConfig& config, int64_t kv_heads) {
  const int64_t most = std::ranges::min(config.kv_heads);
  require(kv_heads >= 1 && kv_heads <= most, "kv_heads: expected 1 to {}, got {}", most, kv_heads);
}

std::vector<HeadGroups> explicit_groups(const ModelConfig& config, const ConvertOptions& options) {
  require(!options.explicit_groups.empty(),
          "grouping `manual` needs groups: give `manual:FILE`, or explicit_groups");
  check_groups(options.explicit_groups, "explicit_groups", config, options, ErrorKind::usage);
  return options.explicit_groups;
}

std::vector<HeadGroups> groups_from_file(const ModelConfig& config, const ConvertOptions& options) {
  const std::filesystem::path file = options.grouping.substr(manual_prefix.size());
  require(!file.empty(), "grouping `manual:` needs a file: `manual:FILE`");
  return parse_groups(read_json(file), file.string(), config, options);
}

}  // namespace

bool is_grouped_on_text(const ConvertOptions& options) {
  if (options.kv_rank && options.kv_heads == 0) return false;
  if (!options.explicit_groups.empty() || options.grouping.starts_with(manual_name)) return false;
  return options.budget || (options.grouping != "neighbour" && options.grouping != "random");
}

HeadGroups spread_groups(int64_t heads, int64_t groups) {
  HeadGroups result(static_cast<size_t>(groups));
  for (int64_t h = 0; h < heads; ++h) result[static_cast<size_t>(h * groups / heads)].push_back(h);
  return result;
}

HeadGroups group_neighbours(const GroupingInput& in) { return cut(heads_of(in), in.kv_heads); }

std::span<const GroupingMethod> grouping_methods() { return methods; }

const GroupingMethod& find_grouping(std::string_view name) {
  const auto* method = std::ranges::find(methods, name, &GroupingMethod::name);
  if (method != std::ranges::end(methods)) return *method;
  std::vector<std::string_view> names;
  for (const GroupingMethod& m : methods) names.push_back(m.name);
  fail(ErrorKind::usage, "grouping `{}` is not known; choices: {}, manual:FILE", name,
       fmt::join(names, ", "));
}

std::vector<HeadGroups> make_groups(const ModelConfig& config, const ConvertOptions& options,
                                    const WeightsToGroup& weights, const Progress& progress) {
  const bool given = options.grouping == manual_name || options.grouping.starts_with(manual_prefix);
  const GroupingMethod* method = given ? nullptr : &find_grouping(options.grouping);
  if (method != nullptr) check_sizes(*method, options.unequal);
  // As many KV heads as groups are given, or any number of unequal ones.
  const bool follows = given && (options.kv_heads == 0 || options.unequal);
  if (method != nullptr && options.unequal) {
    check_unequal_kv_heads(config, options.kv_heads);
  } else if (!follows) {
    check_kv_heads(config, options.kv_heads);
  }
  if (options.grouping == manual_name) return explicit_groups(config, options);
  require(options.explicit_groups.empty(),
          "explicit_groups go with grouping `manual` alone, not with `{}`", options.grouping);
  if (given) return groups_from_file(config, options);
  const bool any = weights.sizes_alone && is_grouped_on_text(options);
  std::vector<HeadGroups> layers;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    const auto tell = [&] {
      if (progress) progress("group", l, config.n_layers);
    };
    tell();
    if (any) {
      layers.push_back(spread_groups(config.kv_heads[static_cast<size_t>(l)], options.kv_heads));
      continue;
    }
    const GroupingInput in{config,
                           weights,
                           l,
                           options.kv_heads,
                           options.unequal,
                           options.seed,
                           options.output.threads,
                           nullptr,
                           tell};
    layers.push_back(method->group(in));
  }
  if (progress) progress("group", config.n_layers, config.n_layers);
  return layers;
}

void check_kv_heads(const ModelConfig& config, int64_t kv_heads) {
  int64_t common = 0;
  for (const int64_t heads : config.kv_heads) common = std::gcd(common, heads);
  if (kv_heads >= 1 && common % kv_heads == 0) return;
  std::vector<int64_t> choices;
  for (int64_t n = 1; n <= common; ++n) {
    if (common % n == 0) choices.push_back(n);
  }
  const auto [low, high] = std::ranges::minmax(config.kv_heads);
  const std::string own = low == high ? fmt::format("{}", low) : shape_text(config.kv_heads);
  fail(ErrorKind::usage, "kv_heads {} does not divide the model's {} KV heads; choices: {}",
       kv_heads, own, fmt::join(choices, ", "));
}

}  // namespace gqa
