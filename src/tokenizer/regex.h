// Regular expressions, by Oniguruma: the engine that published tokenizers were made with.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

struct re_pattern_buffer;

namespace gqa {

class Regex {
 public:
  /// Throws Error (bad_data), its message opened by `where`, for a malformed expression.
  Regex(const std::string& expression, const std::string& where);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// The leftmost matches that do not overlap, in order; no empty one right after another match.
  /// `original` is valid UTF-8. Throws Error (bad_data) where the search exceeds Oniguruma's
  /// limits.
  void for_each_match(std::string_view original,
                      const std::function<void(size_t begin, size_t end)>& visit) const;
  bool matches_anywhere(std::string_view text) const;

 private:
  re_pattern_buffer* compiled_ = nullptr;
  std::string expression_;
};

}  // namespace gqa
