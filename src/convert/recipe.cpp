#include "convert/recipe.h"

#include <algorithm>
#include <limits>
#include <map>

#include "convert/calibrator.h"
#include "convert/file_hasher.h"
#include "convert/grouping.h"
#include "convert/merge.h"
#include "core/fail.h"
#include "io/json_value.h"
#include "io/sha256.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

constexpr int64_t recipe_version = 1;
constexpr int64_t max_int64 = std::numeric_limits<int64_t>::max();

Json as_json(const std::vector<FileHash>& files) {
  Json json = Json::object();
  for (const FileHash& file : files) json[file.name] = file.sha256;
  return json;
}

/// Ordered by name.
std::vector<FileHash> sorted(std::vector<FileHash> files) {
  std::ranges::sort(files, {}, &FileHash::name);
  return files;
}

Json calibration_json(const Calibration& calibration) {
  Json json;
  // The text is known by its content, not by its place. null: none.
  json["text_sha256"] = calibration.text.empty() ? Json() : Json(calibration.sha256);
  json["tokens"] = calibration.tokens;
  json["sampled_tokens"] = calibration.sampled();
  json["window"] = calibration.window;
  json["steps"] = calibration.steps;
  return json;
}

Json options_json(const ExportJob& job) {
  const ConvertOptions& options = job.options;
  Json json;
  if (job.verb == "convert") {
    // null: as many as groups, or as the budget says.
    json["kv_heads"] = options.kv_heads == 0 ? Json() : Json(options.kv_heads);
    if (options.budget) json["budget"] = *options.budget;
    if (options.kv_rank) json["kv_rank"] = *options.kv_rank;
    // Where the groups came from is not recorded: they stand below.
    json["grouping"] = options.grouping.substr(0, options.grouping.find(':'));
    json["unequal"] = options.unequal;
    json["merge"] = options.merge;
    json["seed"] = options.seed;
    if (options.calibration) json["calibration"] = calibration_json(*options.calibration);
  }
  if (options.output.dtype) {
    json["dtype"] = dtype_name(*options.output.dtype);
  } else {
    json["dtype"] = nullptr;
  }
  json["max_shard_bytes"] = options.output.max_shard_bytes;
  return json;
}

/// JSON with a line for each layer's groups, where the library would give each head its own.
std::string with_lines_for_layers(const Json& recipe) {
  std::string text = "{";
  for (const auto& [key, value] : recipe.items()) {
    text += fmt::format("{}\n  \"{}\": ", text.size() > 1 ? "," : "", key);
    if (key == "groups") {
      std::string layers;
      for (const Json& layer : value) {
        layers += fmt::format("{}\n    {}", layers.empty() ? "" : ",", layer.dump());
      }
      text += fmt::format("[{}\n  ]", layers);
    } else {
      for (const char c : value.dump(2))
        text += c == '\n' ? std::string("\n  ") : std::string(1, c);
    }
  }
  return text + "\n}\n";
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

void check_version(const JsonFields& recipe) {
  const int64_t version = recipe.integer("version", 1, max_int64);
  if (version != recipe_version) {
    fail(ErrorKind::bad_data, "{}: expected {}, got {}", recipe.where("version"), recipe_version,
         version);
  }
}

uint64_t read_seed(const JsonFields& options) {
  const Json& seed = options.get("seed");
  if (!seed.is_number_unsigned()) {
    fail(ErrorKind::bad_data, "{}: expected an integer of at least 0, got {}",
         options.where("seed"), seed.dump());
  }
  return seed.get<uint64_t>();
}

std::optional<DType> read_dtype(const JsonFields& options) {
  const auto name = options.maybe_string("dtype");
  if (!name) return std::nullopt;
  const auto dtype = parse_dtype(*name);
  if (!dtype) {
    fail(ErrorKind::bad_data, "{}: expected f32, f16 or bf16, got `{}`", options.where("dtype"),
         *name);
  }
  return dtype;
}

/// A name out of `known`.
template <typename Methods>
std::string read_method(const JsonFields& options, std::string_view key, const Methods& known) {
  std::string name = options.string(key);
  std::string names;
  for (const auto& method : known) {
    if (method.name == name) return name;
    names += fmt::format("`{}`, ", method.name);
  }
  if (key == "grouping" && name == "manual") return name;
  fail(ErrorKind::bad_data, "{}: expected one of {}got `{}`", options.where(key), names, name);
}

/// `text`: where the recipe's text lies, if it has one.
std::optional<Calibration> read_calibration(const JsonFields& options, const fs::path& text) {
  if (!options.has("calibration")) return std::nullopt;
  const JsonFields fields = options.object("calibration");
  Calibration calibration;
  calibration.sha256 = fields.maybe_string("text_sha256").value_or("");
  if (!calibration.sha256.empty()) {
    require(!text.empty(), "{}: the recipe calibrates with a text: say where it is (--calibrate)",
            fields.where("text_sha256"));
    calibration.text = text;
  }
  calibration.tokens = fields.integer("tokens", 1, max_int64);
  calibration.sampled_tokens = fields.integer("sampled_tokens", 0, max_int64);
  calibration.window = fields.integer("window", 2, max_int64);
  calibration.steps = static_cast<int>(fields.integer("steps", 0, 1'000'000));
  return calibration;
}

/// Throws unless `source` holds the very files that the recipe was made from.
void check_source(const JsonFields& recipe, const fs::path& source) {
  std::map<std::string, std::string> recorded;
  for (FileHash& file : read_hashes(recipe, "source")) recorded[file.name] = file.sha256;
  const Checkpoint checkpoint = Checkpoint::open(source);
  for (const auto& [name, hash] : FileHasher(source_files(source, checkpoint), 0).hashes({})) {
    const auto found = recorded.find(name);
    if (found == recorded.end()) {
      fail(ErrorKind::bad_data, "{}: not among the source's files in {}", (source / name).string(),
           recipe.file().string());
    }
    if (found->second != hash) {
      fail(ErrorKind::bad_data, "{}: SHA-256 is {}, expected {} as in {}", (source / name).string(),
           hash, found->second, recipe.file().string());
    }
    recorded.erase(found);
  }
  if (!recorded.empty()) {
    fail(ErrorKind::bad_data, "{}: missing, but {} names it",
         (source / recorded.begin()->first).string(), recipe.file().string());
  }
}

}  // namespace

std::vector<fs::path> source_files(const fs::path& dir, const Checkpoint& checkpoint) {
  std::vector<fs::path> files = {dir / "config.json"};
  const auto& weights = checkpoint.files();
  files.insert(files.end(), weights.begin(), weights.end());
  return files;
}

Json describe(const ExportJob& job, const std::vector<FileHash>& source) {
  Json recipe;
  recipe["version"] = recipe_version;
  recipe["verb"] = job.verb;
  recipe["options"] = options_json(job);
  recipe["source"]["name"] = job.source.name;
  recipe["source"]["sha256"] = as_json(sorted(source));
  if (!job.plan.planes.empty()) recipe["planes"] = job.plan.planes;
  recipe["groups"] = job.plan.groups;
  return job.calibrator && job.calibrator->gave_up() ? without_fitting(recipe) : recipe;
}

Json without_fitting(Json description) {
  description["fitting"] = "given up";
  return description;
}

std::string recipe_text(Json description, const std::vector<FileHash>& output) {
  description["output"]["sha256"] = as_json(sorted(output));
  return with_lines_for_layers(description);
}

std::vector<FileHash> read_hashes(const JsonFields& recipe, const std::string& part) {
  check_version(recipe);
  const JsonFields files = recipe.object(part).object("sha256");
  std::vector<FileHash> hashes;
  for (const auto& [name, hash] : files.json().items()) {
    const bool sound = is_plain_name(name) && hash.is_string() &&
                       hash.template get_ref<const std::string&>().size() == 64;
    if (!sound) {
      fail(ErrorKind::bad_data, "{}: expected the SHA-256 of a file in the folder, got {}",
           files.where(name), hash.dump());
    }
    hashes.push_back({name, hash.template get<std::string>()});
  }
  return hashes;
}

ConvertOptions read_recipe(const fs::path& recipe, const fs::path& source,
                           const fs::path& calibration_text) {
  const Json json = read_json(recipe);
  const JsonFields fields(json, recipe);
  check_version(fields);
  if (const std::string verb = fields.string("verb"); verb != "convert") {
    fail(ErrorKind::bad_data, "{}: expected `convert`, got `{}`", fields.where("verb"), verb);
  }
  const JsonFields given = fields.object("options");
  ConvertOptions options;
  options.grouping = read_method(given, "grouping", grouping_methods());
  const bool manual = options.grouping == "manual";
  options.budget = given.maybe_number("budget", 0, 1);
  options.kv_rank = given.maybe_integer("kv_rank", 1, max_int64);
  const bool stands_below = manual || options.budget;
  if ((!stands_below && !options.kv_rank) || given.has("kv_heads")) {
    options.kv_heads = given.integer("kv_heads", 1, max_int64);
  }
  options.unequal = given.boolean("unequal", false);
  options.merge = read_method(given, "merge", merge_methods());
  options.seed = read_seed(given);
  options.calibration = read_calibration(given, calibration_text);
  options.output.dtype = read_dtype(given);
  options.output.max_shard_bytes = given.integer("max_shard_bytes", 1, max_int64);
  check_source(fields, source);
  if (stands_below) {
    options.explicit_groups =
        parse_groups(fields.get("groups"), fields.where("groups"), load_config(source), options);
  }
  return options;
}

}  // namespace gqa
