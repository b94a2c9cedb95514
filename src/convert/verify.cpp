#include <optional>
#include <set>
#include <utility>

#include "convert/recipe.h"
#include "convert/source.h"
#include "core/fail.h"
#include "gqa/inspect.h"
#include "io/folder.h"
#include "io/json_value.h"
#include "io/key_directions.h"
#include "io/sha256.h"
#include "model/layout.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// One folder's checks. What throws is a problem of its own; the others go on.
class Verifier {
 public:
  Verifier(const fs::path& dir, const Progress& progress) : dir_(dir), progress_(progress) {}

  Verification run() {
    check_model_folder(dir_);
    std::optional<ModelConfig> config;
    std::optional<Checkpoint> checkpoint;
    check([&] { config = load_config(dir_); }, "config.json: every field");
    check([&] { checkpoint.emplace(Checkpoint::open(dir_)); }, "weights: every file's header");
    if (config && checkpoint) check_tensors(*config, *checkpoint);
    if (checkpoint) check_values(*checkpoint);
    if (config) check_tokens(*config);
    if (config) check_directions(*config);
    check_recipe();
    return std::move(result_);
  }

 private:
  /// True where `body` does not throw; `good` (may be empty) is then among the checks. A folder
  /// that lacks config or weights is no model: no_input is passed on.
  template <typename Body>
  bool check(Body&& body, const std::string& good) {
    try {
      body();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::bad_data && error.kind() != ErrorKind::io) throw;
      result_.problems.emplace_back(error.what());
      return false;
    }
    if (!good.empty()) result_.checks.push_back(good);
    return true;
  }

  void check_tensors(const ModelConfig& config, const Checkpoint& checkpoint) {
    std::set<std::string> expected;
    int64_t bad = 0;
    for (const ExpectedTensor& want : expected_tensors(config)) {
      bad += check_one(bad, [&] { checkpoint.at(want.name, want.shape); });
      expected.insert(want.name);
    }
    for (const Tensor* tensor : checkpoint.tensors()) {
      if (expected.contains(tensor->name)) continue;
      bad += check_one(bad, [&] { check_unused_tensor(config, checkpoint, *tensor); });
    }
    if (bad > most_problems) {
      result_.problems.push_back(fmt::format("{} more tensors like these", bad - most_problems));
    } else if (bad == 0) {
      result_.checks.push_back(fmt::format(
          "tensors: all {} that config.json calls for, shapes as it says", expected.size()));
    }
  }

  /// 1 where the tensor is bad; names it unless many were before it.
  template <typename Body>
  int64_t check_one(int64_t bad, Body&& body) {
    const bool good = check(body, {});
    if (!good && bad >= most_problems) result_.problems.pop_back();
    return good ? 0 : 1;
  }

  void check_values(const Checkpoint& checkpoint) {
    int64_t total = 0, done = 0;
    for (const Tensor* tensor : checkpoint.tensors()) total += tensor->bytes;
    bool all_good = true;
    for (const Tensor* tensor : checkpoint.tensors()) {
      tell("verify", done, total);
      all_good &= check([&] { check_finite(*tensor); }, {});
      done += tensor->bytes;
    }
    tell("verify", done, total);
    if (all_good) result_.checks.push_back(fmt::format("weights: all finite ({} bytes)", total));
  }

  void check_tokens(const ModelConfig& config) {
    bool present = false;
    if (!check([&] { present = check_tokenizer(config, dir_); }, {})) return;
    result_.checks.emplace_back(present ? "tokenizer.json: valid, all ids in the vocabulary"
                                        : "tokenizer.json: none, which weights can do without");
  }

  void check_directions(const ModelConfig& config) {
    if (!has_key_directions(dir_)) return;
    check([&] { read_key_directions(dir_, config); },
          fmt::format("{}: orthonormal directions for every KV head", key_directions_name));
  }

  void check_recipe() {
    const fs::path file = dir_ / recipe_name;
    std::error_code unreadable;
    if (!fs::exists(file, unreadable) && !unreadable) return;
    std::vector<FileHash> hashes;
    const auto read = [&] {
      const Json json = read_json(file);
      hashes = read_hashes(JsonFields(json, file), "output");
    };
    if (check(read, {})) check_hashes(hashes);
  }

  void check_hashes(const std::vector<FileHash>& hashes) {
    bool all_good = true;
    int64_t done = 0;
    for (const FileHash& recorded : hashes) {
      tell("hash", done++, std::ssize(hashes));
      const auto compare = [&] {
        if (std::error_code unknown; !fs::exists(dir_ / recorded.name, unknown)) {
          fail(ErrorKind::bad_data, "{}: missing, but {} names it", (dir_ / recorded.name).string(),
               recipe_name);
        }
        const std::string actual = sha256_of_file(dir_ / recorded.name);
        if (actual == recorded.sha256) return;
        fail(ErrorKind::bad_data, "{}: SHA-256 is {}, expected {} as in {}",
             (dir_ / recorded.name).string(), actual, recorded.sha256, recipe_name);
      };
      all_good &= check(compare, {});
    }
    tell("hash", done, std::ssize(hashes));
    if (!all_good) return;
    result_.checks.push_back(
        fmt::format("{}: all {} files have the SHA-256 that it records", recipe_name, done));
  }

  void tell(std::string_view what, int64_t done, int64_t total) const {
    if (progress_) progress_(what, done, total);
  }

  static constexpr int64_t most_problems = 20;  ///< of one kind, one by one

  const fs::path& dir_;
  const Progress& progress_;
  Verification result_;
};

}  // namespace

Verification verify(const fs::path& dir, const Progress& progress) {
  return Verifier(dir, progress).run();
}

}  // namespace gqa
