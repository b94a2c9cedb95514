// What tune() has measured, on disk.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "gqa/tune.h"
#include "io/json_value.h"

namespace gqa {

/// A file of JSON lines, an entry each: what was measured of what. Always whole: it is replaced in
/// one step. Entries of other models, texts or options stay, and are not found.
class TuneState {
 public:
  /// Reads the file if it is there. Throws Error (bad_data, naming the line).
  explicit TuneState(std::filesystem::path file);

  /// `of`: all that the measurement depends on.
  std::optional<TunePoint> find(const Json& of) const;
  void put(const Json& of, const TunePoint& point);

 private:
  std::filesystem::path file_;
  std::map<std::string, Json> points_;  ///< by what they are of
};

}  // namespace gqa
