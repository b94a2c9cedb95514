// Which KV heads become one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/calibrator.h"
#include "gqa/convert.h"
#include "gqa/error.h"
#include "io/json.h"
#include "regroup/grams.h"

namespace gqa {

/// What groupings that look at heads look at.
struct WeightsToGroup {
  const Checkpoint* checkpoint = nullptr;
  Calibrator* calibrator = nullptr;  ///< null without calibration
  bool sizes_alone = false;          ///< any heads will do, in place of those that text would group
};

/// What a grouping method sees of one layer.
struct GroupingInput {
  const ModelConfig& config;
  const WeightsToGroup& weights;
  int64_t layer = 0;
  int64_t kv_heads = 0;  ///< wanted; divides the layer's own number where groups are equal
  bool unequal = false;  ///< whether groups may be of different sizes
  uint64_t seed = 0;
  int threads = 0;                       ///< 0: default_threads()
  const HeadGrams* grams = nullptr;      ///< load_grams(), where they are at hand
  std::function<void()> interrupt = {};  ///< called now and then; may be empty, may throw
};

/// Sizes of the groups that a method makes.
enum class GroupSizes { equal, any, unequal };

/// Canonical order: members ascending, groups by their first member, so that as many groups as
/// heads change nothing.
struct GroupingMethod {
  std::string_view name;
  GroupSizes sizes;
  HeadGroups (*group)(const GroupingInput&);
};

/// Whether these options, with a calibration text, let it say which heads become one.
bool is_grouped_on_text(const ConvertOptions& options);

/// Heads in order, spread evenly over so many groups.
HeadGroups spread_groups(int64_t heads, int64_t groups);

/// Heads in order, cut into groups of equal size.
HeadGroups group_neighbours(const GroupingInput& in);

std::span<const GroupingMethod> grouping_methods();
/// Throws Error (usage) where there is none of that name.
const GroupingMethod& find_grouping(std::string_view name);

/// Per layer. Throws Error: usage for an unknown grouping, for a number of KV heads or explicit
/// groups that do not fit the model, for sizes that the grouping does not make; no_input and
/// bad_data for the file of `manual:FILE`.
std::vector<HeadGroups> make_groups(const ModelConfig& config, const ConvertOptions& options,
                                    const WeightsToGroup& weights = {},
                                    const Progress& progress = {});

/// Throws Error (usage) unless `kv_heads` divides the KV heads of every layer; names the valid
/// choices.
void check_kv_heads(const ModelConfig& config, int64_t kv_heads);

/// Groups as JSON holds them: one list of groups for every layer, or one such list per layer.
/// Throws Error (bad_data, naming `where`, layer and head) unless each layer's groups part its KV
/// heads into options.kv_heads groups (0: any number), of equal size unless options.unequal.
std::vector<HeadGroups> parse_groups(const Json& json, const std::string& where,
                                     const ModelConfig& config, const ConvertOptions& options);

/// The same check for groups at hand, with an Error of the given kind.
void check_groups(std::span<const HeadGroups> layers, const std::string& where,
                  const ModelConfig& config, const ConvertOptions& options, ErrorKind kind);

}  // namespace gqa
