// The parts that a tokenizer.json is composed of: normalizers, pre-tokenizers, decoders.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/fail.h"
#include "core/text.h"
#include "io/json.h"

namespace gqa {

/// Calls visit(fields, type) for a component; for each one in turn where it is a Sequence, whose
/// list stands in field `list`. `at`: the component's place in the file.
template <typename Visit>
void for_each_component(const Json& component, const std::filesystem::path& file,
                        const std::string& at, const char* list, const Visit& visit) {
  const JsonFields fields(component, file, at);
  const std::string type = fields.string("type");
  if (type != "Sequence") {
    visit(fields, type);
    return;
  }
  const Json& parts = fields.get(list);
  if (!parts.is_array()) {
    fail(ErrorKind::bad_data, "{}: expected a list, got {}", fields.where(list), parts.type_name());
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    for_each_component(parts[i], file, fmt::format("{}.{}[{}]", at, list, i), list, visit);
  }
}

/// The same for a field of the file's top object; nothing is called where it is absent or null.
template <typename Visit>
void for_each_component(const JsonFields& top, const char* field, const char* list,
                        const Visit& visit) {
  if (top.has(field)) for_each_component(top.get(field), top.file(), field, list, visit);
}

[[noreturn]] inline void fail_unsupported(const JsonFields& component, std::string_view kind,
                                          std::string_view type, std::string_view supported) {
  fail(ErrorKind::bad_data, "{}: {} {} is not supported (supported: {})", component.where("type"),
       kind, type, supported);
}

inline bool required_boolean(const JsonFields& component, std::string_view key) {
  component.get(key);
  return component.boolean(key, false);
}

inline char32_t required_character(const JsonFields& component, std::string_view key) {
  const std::string text = component.string(key);
  if (text.empty() || static_cast<size_t>(utf8_length(text, 0)) != text.size()) {
    fail(ErrorKind::bad_data, "{}: expected one character, got \"{}\"", component.where(key), text);
  }
  return utf8_decode(text, 0);
}

inline std::string utf8(char32_t c) {
  std::string text;
  utf8_append(text, c);
  return text;
}

}  // namespace gqa
