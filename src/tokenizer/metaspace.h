// Metaspace: spaces shown as another character (SentencePiece's U+2581).
#pragma once

#include "tokenizer/components.h"

namespace gqa {

/// The fields that the pre-tokenizer and the decoder share.
struct Metaspace {
  enum class Prepend { always, first, never };
  char32_t replacement = U'\u2581';
  Prepend prepend = Prepend::always;
  bool split = true;

  static Metaspace load(const JsonFields& component) {
    Metaspace m;
    m.replacement = required_character(component, "replacement");
    m.split = component.boolean("split", true);
    const std::string scheme = component.maybe_string("prepend_scheme").value_or("always");
    if (scheme == "first") {
      m.prepend = Prepend::first;
    } else if (scheme == "never") {
      m.prepend = Prepend::never;
    } else if (scheme != "always") {
      fail(ErrorKind::bad_data, "{}: expected always, first or never, got \"{}\"",
           component.where("prepend_scheme"), scheme);
    }
    if (!component.boolean("add_prefix_space", true) && m.prepend != Prepend::never) {
      fail(ErrorKind::bad_data, "{}: false contradicts prepend_scheme \"{}\"",
           component.where("add_prefix_space"), scheme);
    }
    return m;
  }
};

}  // namespace gqa
