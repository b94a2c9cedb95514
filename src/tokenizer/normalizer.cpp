#include "tokenizer/normalizer.h"

#include "tokenizer/components.h"

namespace gqa {

Normalizer Normalizer::load(const JsonFields& top) {
  Normalizer n;
  for_each_component(
      top, "normalizer", "normalizers", [&](const JsonFields& fields, const std::string& type) {
        if (type == "Prepend") {
          n.steps_.emplace_back(Prepend{fields.string("prepend")});
        } else if (type == "Replace") {
          n.steps_.emplace_back(Replacement::load(fields));
        } else if (type == "ByteLevel") {
          n.steps_.emplace_back(ByteLevel{});
          n.to_byte_level_ = true;
        } else {
          fail_unsupported(fields, "normalizer", type, "Prepend, Replace, ByteLevel, Sequence");
        }
      });
  return n;
}

void Normalizer::apply(Piece& piece) const {
  for (const auto& step : steps_) {
    if (const auto* prepend = std::get_if<Prepend>(&step)) {
      piece.prepend(prepend->prefix);
    } else if (const auto* replacement = std::get_if<Replacement>(&step)) {
      piece.replace(replacement->pattern, replacement->content);
    } else {
      piece.to_byte_level();
    }
  }
}

}  // namespace gqa
