#include "tune/state.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/fail.h"
#include "core/text.h"
#include "io/rename.h"
#include "io/staging.h"

namespace gqa {
namespace {

constexpr double infinite = std::numeric_limits<double>::max();
constexpr int64_t max_int64 = std::numeric_limits<int64_t>::max();

Json measured(const TunePoint& point) {
  return {{"layer_kv_heads", point.layer_kv_heads},
          {"kv_bytes_per_token", point.kv_bytes_per_token},
          {"ppl", point.ppl},
          {"kl", point.kl}};
}

TunePoint read_point(const Json& json, const std::filesystem::path& file) {
  const JsonFields fields(json, file);
  TunePoint point;
  point.layer_kv_heads = fields.integers("layer_kv_heads", 1, max_int64);
  point.kv_bytes_per_token = fields.integer("kv_bytes_per_token", 1, max_int64);
  point.ppl = fields.number("ppl", 0, infinite);
  point.kl = fields.number("kl", -1, infinite);
  return point;
}

}  // namespace

TuneState::TuneState(std::filesystem::path file) : file_(std::move(file)) {
  if (!std::filesystem::exists(file_)) return;
  const std::string text = read_text(file_);
  size_t line = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::filesystem::path where = fmt::format("{}:{}", file_.string(), ++line);
    const Json entry = parse_json(text.substr(at, end - at), where);
    const JsonFields fields(entry, where);
    read_point(fields.get("point"), where);  // checks it
    points_[fields.get("of").dump()] = fields.get("point");
    at = end + 1;
  }
}

std::optional<TunePoint> TuneState::find(const Json& of) const {
  const auto found = points_.find(of.dump());
  if (found == points_.end()) return std::nullopt;
  return read_point(found->second, file_);
}

void TuneState::put(const Json& of, const TunePoint& point) {
  points_[of.dump()] = measured(point);
  std::string text;
  for (const auto& [key, value] : points_) {
    text += fmt::format("{{\"of\":{},\"point\":{}}}\n", key, value.dump());
  }
  std::filesystem::path fresh = file_;
  fresh += ".new";
  write_file(fresh, text);
  replace_file(fresh, file_);
}

}  // namespace gqa
