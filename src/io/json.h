// JSON files, checked: errors name the file and the field. Whoever looks into a Json itself
// includes io/json_value.h, which takes longer to compile than most of our files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gqa {

/// Key order is kept, so that what we write back differs only where we changed it.
using Json = nlohmann::ordered_json;
/// For members of classes, so that headers need no whole Json.
using SharedJson = std::shared_ptr<const Json>;

/// Parses JSON. Throws Error (bad_data): not JSON, a key given twice, nested deeper than 64 levels.
Json parse_json(std::string_view text, const std::filesystem::path& file);
/// The same for a file's content. Also throws Error (no_input, io).
Json read_json(const std::filesystem::path& file);

/// Appends a member whose key the object does not have yet. `object[key] = value` looks at all keys
/// first, which is too slow for thousands of them.
void append_member(Json& object, std::string key, Json value);

/// A value as JSON, for a message; the start alone where it is long.
std::string json_preview(const Json& value);

/// Reads fields of a JSON object; every failure is an Error (bad_data) that names file and field,
/// what was expected and what came. Absent and null are the same.
class JsonFields {
 public:
  /// `at`: where the object stands, e.g. "rope_scaling"; empty for the top. Throws Error (bad_data)
  /// where `object` is not an object. Keeps references to both.
  JsonFields(const Json& object, const std::filesystem::path& file, std::string at = {});

  bool has(std::string_view key) const;
  const Json& get(std::string_view key) const;  ///< must be there
  int64_t integer(std::string_view key, int64_t low, int64_t high) const;
  std::optional<int64_t> maybe_integer(std::string_view key, int64_t low, int64_t high) const;
  double number(std::string_view key, double low, double high) const;
  std::optional<double> maybe_number(std::string_view key, double low, double high) const;
  std::string string(std::string_view key) const;
  std::optional<std::string> maybe_string(std::string_view key) const;
  bool boolean(std::string_view key, bool absent) const;
  JsonFields object(std::string_view key) const;  ///< must be there
  /// One integer, or a list of them; empty where absent.
  std::vector<int64_t> integers(std::string_view key, int64_t low, int64_t high) const;

  /// A list of lists of integers, none of them empty; null in it becomes an empty one. Empty where
  /// absent.
  std::vector<std::vector<int64_t>> integer_lists(std::string_view key, int64_t low,
                                                  int64_t high) const;

  /// "FILE: field `rope_scaling.factor`"
  std::string where(std::string_view key) const;
  const std::filesystem::path& file() const { return *file_; }
  const Json& json() const { return *object_; }

 private:
  const Json* object_;
  const std::filesystem::path* file_;
  std::string at_;
};

}  // namespace gqa
