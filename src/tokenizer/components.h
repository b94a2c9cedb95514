// The parts that a tokenizer.json is composed of: normalizers, pre-tokenizers, decoders.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/fail.h"
#include "core/text.h"
#include "io/json.h"

namespace gqa {

/// A component's fields and its type.
using VisitComponent = std::function<void(const JsonFields& fields, const std::string& type)>;

/// Calls visit(fields, type) for the component in a field of the file's top object; for each one in
/// turn where it is a Sequence, whose list stands in field `list`. Nothing is called where it is
/// absent or null.
void for_each_component(const JsonFields& top, const char* field, const char* list,
                        const VisitComponent& visit);

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
