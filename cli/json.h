// JSON that verbs print. Values are kept here with the standard library alone, since
// <nlohmann/json.hpp> takes a compiler seconds in every file that builds an object with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace gqa::cli {

/// Null, a truth, a number, a text, an array, or an object whose keys keep their order.
class Json {
 public:
  struct Member;

  // Implicit, so that an object reads as {{"name", value}, ...}.
  // NOLINTBEGIN(google-explicit-constructor)
  Json(std::nullptr_t = nullptr);
  template <typename T>
  requires std::is_arithmetic_v<T> Json(T number) : Json(Scalar(widest(number))) {}
  Json(const char* text);
  Json(std::string_view text);
  Json(const std::string& text);
  template <typename T>
  Json(const std::vector<T>& items) : Json(array()) {
    for (const T& item : items) push_back(item);
  }
  Json(std::initializer_list<Member> members);
  // NOLINTEND(google-explicit-constructor)

  Json(const Json& other);
  Json(Json&& other) noexcept;
  Json& operator=(const Json& other);
  Json& operator=(Json&& other) noexcept;
  ~Json();

  static Json array();
  /// Of an array.
  void push_back(Json item);
  /// A member of an object; a new one is null.
  Json& operator[](std::string_view key);
  /// Takes over an object's members.
  void update(const Json& other);

  /// On one line. NaN and infinity become null; bytes that are not UTF-8 become U+FFFD.
  std::string text() const;

 private:
  using Scalar = std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string>;
  enum class Kind { scalar, array, object };
  struct Printer;

  explicit Json(Scalar scalar);

  template <typename T>
  static auto widest(T number) {
    if constexpr (std::is_same_v<T, bool>) {
      return number;
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<double>(number);
    } else if constexpr (std::is_signed_v<T>) {
      return static_cast<int64_t>(number);
    } else {
      return static_cast<uint64_t>(number);
    }
  }

  Kind kind_ = Kind::scalar;
  Scalar scalar_;
  std::vector<std::string> keys_;  ///< an object's
  std::vector<Json> items_;        ///< an array's items, or an object's values
};

struct Json::Member {
  std::string key;
  Json value;
};

}  // namespace gqa::cli
