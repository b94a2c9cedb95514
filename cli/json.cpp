#include "cli/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace gqa::cli {

/// nlohmann-json writes numbers and escapes.
struct Json::Printer {
  using Printed = nlohmann::ordered_json;

  static Printed printed(const Json& json) {
    if (json.kind_ == Kind::scalar) {
      return std::visit([](const auto& value) { return Printed(value); }, json.scalar_);
    }
    Printed result = json.kind_ == Kind::array ? Printed::array() : Printed::object();
    for (size_t i = 0; i < json.items_.size(); ++i) {
      if (json.kind_ == Kind::array) {
        result.push_back(printed(json.items_[i]));
      } else {
        result[json.keys_[i]] = printed(json.items_[i]);
      }
    }
    return result;
  }
};

Json::Json(std::nullptr_t) {}
Json::Json(Scalar scalar) : scalar_(std::move(scalar)) {}
Json::Json(const char* text) : scalar_(std::string(text)) {}
Json::Json(std::string_view text) : scalar_(std::string(text)) {}
Json::Json(const std::string& text) : scalar_(text) {}

Json::Json(std::initializer_list<Member> members) : kind_(Kind::object) {
  for (const Member& member : members) (*this)[member.key] = member.value;
}

Json::Json(const Json& other) = default;
Json::Json(Json&& other) noexcept = default;
Json& Json::operator=(const Json& other) = default;
Json& Json::operator=(Json&& other) noexcept = default;
Json::~Json() = default;

Json Json::array() {
  Json result;
  result.kind_ = Kind::array;
  return result;
}

void Json::push_back(Json item) { items_.push_back(std::move(item)); }

Json& Json::operator[](std::string_view key) {
  const auto found = std::find(keys_.begin(), keys_.end(), key);
  if (found != keys_.end()) return items_[static_cast<size_t>(found - keys_.begin())];
  kind_ = Kind::object;
  keys_.emplace_back(key);
  return items_.emplace_back();
}

void Json::update(const Json& other) {
  for (size_t i = 0; i < other.items_.size(); ++i) (*this)[other.keys_[i]] = other.items_[i];
}

std::string Json::text() const {
  using Printed = Printer::Printed;
  return Printer::printed(*this).dump(-1, ' ', false, Printed::error_handler_t::replace);
}

}  // namespace gqa::cli
