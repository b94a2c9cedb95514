#include "convert/grouping.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "core/fail.h"
#include "regroup/merge_heads.h"
#include "regroup/partition.h"
#include "regroup/random.h"

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

HeadGroups group_neighbours(const GroupingInput& in) { return cut(heads_of(in), in.kv_heads); }

HeadGroups group_randomly(const GroupingInput& in) {
  std::vector<int64_t> heads = heads_of(in);
  Random random(in.seed, RandomUse::grouping, in.layer);
  for (size_t i = heads.size(); i > 1; --i) std::swap(heads[i - 1], heads[random.below(i)]);
  HeadGroups groups = cut(heads, in.kv_heads);
  for (auto& group : groups) std::sort(group.begin(), group.end());
  std::sort(groups.begin(), groups.end());
  return groups;
}

/// The groups that lose the least by what principal heads keep. With text, neighbours are another
/// candidate, and what they make of the layer's output decides.
HeadGroups group_similar(const GroupingInput& in) {
  const int64_t heads = in.config.kv_heads[in.layer];
  if (in.kv_heads == heads) return group_neighbours(in);
  const PartitionOptions options{.heads = heads, .groups = in.kv_heads, .seed = in.seed};
  if (in.weights.calibrator != nullptr) {
    const LayerStudy study = in.weights.calibrator->study(in.layer);
    const StudyPrices prices(study);
    const HeadGroups cheapest = cheapest_partition(options, std::cref(prices));
    const HeadGroups neighbours = group_neighbours(in);
    if (cheapest == neighbours) return cheapest;
    return in.weights.calibrator->best_groups(study, {cheapest, neighbours});
  }
  const HeadGrams grams = make_grams(
      load_heads(in.config, in.layer, attention_tensors(*in.weights.checkpoint, in.layer)),
      assumed_variance(attention_norm(*in.weights.checkpoint, in.layer), in.config.attention_bias));
  return cheapest_partition(options, HeadPrices(grams));
}

constexpr GroupingMethod methods[] = {
    {"neighbour", group_neighbours}, {"random", group_randomly}, {"similarity", group_similar}};

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

std::span<const GroupingMethod> grouping_methods() { return methods; }

std::vector<HeadGroups> make_groups(const ModelConfig& config, const ConvertOptions& options,
                                    const WeightsToGroup& weights, const Progress& progress) {
  const bool given = options.grouping == manual_name || options.grouping.starts_with(manual_prefix);
  require(
      given || !options.unequal,
      "unequal groups have to be given (grouping `manual:FILE`); grouping `{}` makes equal ones",
      options.grouping);
  // As many KV heads as groups are given, or any number of unequal ones.
  const bool follows =
      given && (options.kv_heads == 0 || (options.unequal && options.kv_heads > 0));
  if (!follows) check_kv_heads(config, options.kv_heads);
  if (options.grouping == manual_name) return explicit_groups(config, options);
  require(options.explicit_groups.empty(),
          "explicit_groups go with grouping `manual` alone, not with `{}`", options.grouping);
  if (options.grouping.starts_with(manual_prefix)) return groups_from_file(config, options);
  const auto* method =
      std::ranges::find(methods, std::string_view(options.grouping), &GroupingMethod::name);
  if (method == std::ranges::end(methods)) {
    std::vector<std::string_view> names;
    for (const GroupingMethod& m : methods) names.push_back(m.name);
    fail(ErrorKind::usage, "grouping `{}` is not known; choices: {}, manual:FILE", options.grouping,
         fmt::join(names, ", "));
  }
  std::vector<HeadGroups> layers;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    if (progress) progress("group", l, config.n_layers);
    layers.push_back(method->group({config, weights, l, options.kv_heads, options.seed}));
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
