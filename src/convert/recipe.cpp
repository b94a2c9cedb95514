#include "convert/recipe.h"

#include <algorithm>
#include <limits>
#include <map>

#include "convert/grouping.h"
#include "convert/merge.h"
#include "core/fail.h"
#include "io/sha256.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

constexpr int64_t recipe_version = 1;
constexpr int64_t max_int64 = std::numeric_limits<int64_t>::max();

using Hashes = std::map<std::string, std::string>;

int64_t total_bytes(const fs::path& dir, const std::vector<std::string>& names) {
  int64_t bytes = 0;
  for (const std::string& name : names) {
    std::error_code unknown;  // hashing will say what is wrong
    const auto size = fs::file_size(dir / name, unknown);
    if (!unknown) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

/// Hashes files; tells progress in bytes.
class Hasher {
 public:
  Hasher(int64_t total_bytes, const Progress& progress)
      : total_(total_bytes), progress_(progress) {}

  Hashes hash(const fs::path& dir, const std::vector<std::string>& names) {
    Hashes hashes;
    for (const std::string& name : names) {
      if (progress_) progress_("hash", done_, total_);
      hashes[name] = sha256_of_file(dir / name);
      done_ += total_bytes(dir, {name});
    }
    if (progress_) progress_("hash", done_, total_);
    return hashes;
  }

 private:
  int64_t total_;
  int64_t done_ = 0;
  const Progress& progress_;
};

/// What a conversion depends on: weights, their index, config.
std::vector<std::string> source_files(const Checkpoint& checkpoint) {
  std::vector<std::string> names = {"config.json"};
  for (const fs::path& file : checkpoint.files()) names.push_back(file.filename().string());
  return names;
}

std::vector<std::string> written_files(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

Json options_json(const ExportJob& job) {
  const ConvertOptions& options = job.options;
  Json json;
  if (job.verb == "convert") {
    json["kv_heads"] = options.kv_heads;
    // Where the groups came from is not recorded: they stand below.
    json["grouping"] = options.grouping.substr(0, options.grouping.find(':'));
    json["merge"] = options.merge;
    json["seed"] = options.seed;
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
std::string recipe_text(const Json& recipe) {
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

/// Throws unless `source` holds the very files that the recipe was made from.
void check_source(const JsonFields& recipe, const fs::path& source) {
  Hashes recorded;
  for (FileHash& file : read_hashes(recipe, "source")) recorded[file.name] = file.sha256;
  const auto names = source_files(Checkpoint::open(source));
  for (const auto& [name, hash] : Hasher(0, {}).hash(source, names)) {
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

std::string make_recipe(const ExportJob& job, const fs::path& written, const Progress& progress) {
  const auto sources = source_files(job.source.checkpoint);
  const auto outputs = written_files(written);
  const fs::path& dir = job.source.dir;
  Hasher hasher(total_bytes(dir, sources) + total_bytes(written, outputs), progress);
  Json recipe;
  recipe["version"] = recipe_version;
  recipe["verb"] = job.verb;
  recipe["options"] = options_json(job);
  recipe["source"]["name"] = job.source.name;
  recipe["source"]["sha256"] = hasher.hash(dir, sources);
  recipe["groups"] = job.plan.groups;
  recipe["output"]["sha256"] = hasher.hash(written, outputs);
  return recipe_text(recipe);
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

ConvertOptions read_recipe(const fs::path& recipe, const fs::path& source) {
  const Json json = read_json(recipe);
  const JsonFields fields(json, recipe);
  check_version(fields);
  if (const std::string verb = fields.string("verb"); verb != "convert") {
    fail(ErrorKind::bad_data, "{}: expected `convert`, got `{}`", fields.where("verb"), verb);
  }
  const JsonFields given = fields.object("options");
  ConvertOptions options;
  options.kv_heads = given.integer("kv_heads", 1, max_int64);
  options.grouping = read_method(given, "grouping", grouping_methods());
  options.merge = read_method(given, "merge", merge_methods());
  options.seed = read_seed(given);
  options.output.dtype = read_dtype(given);
  options.output.max_shard_bytes = given.integer("max_shard_bytes", 1, max_int64);
  check_source(fields, source);
  if (options.grouping == "manual") {
    options.explicit_groups = parse_groups(fields.get("groups"), fields.where("groups"),
                                           load_config(source), options.kv_heads);
  }
  return options;
}

}  // namespace gqa
