#include "tokenizer/pre_tokenizer.h"

#include <utility>

namespace gqa {
namespace {

/// The words of GPT-2: contractions, letters, numbers, other signs, spaces.
constexpr const char* kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

SplitBehavior load_behavior(const JsonFields& fields) {
  const std::string name = fields.string("behavior");
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  fail(ErrorKind::bad_data,
       "{}: expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, got "
       "\"{}\"",
       fields.where("behavior"), name);
}

}  // namespace

PreTokenizer PreTokenizer::load(const JsonFields& top) {
  PreTokenizer p;
  for_each_component(
      top, "pre_tokenizer", "pretokenizers",
      [&](const JsonFields& fields, const std::string& type) { p.add(fields, type); });
  return p;
}

void PreTokenizer::add(const JsonFields& fields, const std::string& type) {
  if (type == "Split") {
    steps_.emplace_back(
        Split{Pattern::load(fields), load_behavior(fields), required_boolean(fields, "invert")});
  } else if (type == "Digits") {
    const bool each = required_boolean(fields, "individual_digits");
    steps_.emplace_back(Split{Pattern::regex("\\p{N}", fields.where("type")),
                              each ? SplitBehavior::isolated : SplitBehavior::contiguous, false});
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{required_boolean(fields, "add_prefix_space"),
                                  fields.boolean("use_regex", true),
                                  Pattern::regex(kGpt2Words, fields.where("type"))});
    to_byte_level_ = true;
  } else if (type == "Metaspace") {
    const Metaspace options = Metaspace::load(fields);
    const std::string mark = utf8(options.replacement);
    steps_.emplace_back(Spaces{options, mark, Pattern::literal(" "), Pattern::literal(mark)});
  } else {
    fail_unsupported(fields, "pre-tokenizer", type,
                     "ByteLevel, Metaspace, Split, Digits, Sequence");
  }
}

void PreTokenizer::run(const Split& step, const Piece& piece, std::vector<Piece>& out) {
  std::vector<Span> spans = step.pattern.find(piece.text);
  if (step.invert) {
    for (Span& s : spans) s.match = !s.match;
  }
  split(piece, std::move(spans), step.behavior, out);
}

void PreTokenizer::run(const ByteLevel& step, Piece piece, std::vector<Piece>& out) {
  if (step.add_prefix_space && !piece.text.starts_with(' ')) piece.prepend(" ");
  const size_t before = out.size();
  if (step.use_regex) {
    split(piece, step.words.find(piece.text), SplitBehavior::isolated, out);
  } else {
    out.push_back(std::move(piece));
  }
  for (size_t i = before; i < out.size(); ++i) out[i].to_byte_level();
}

void PreTokenizer::run(const Spaces& step, Piece piece, std::vector<Piece>& out) {
  piece.replace(step.space, step.replacement);
  const bool wanted = step.options.prepend == Metaspace::Prepend::always ||
                      (step.options.prepend == Metaspace::Prepend::first && piece.first);
  if (wanted && !piece.text.starts_with(step.replacement)) piece.prepend(step.replacement);
  if (step.options.split) {
    split(piece, step.mark.find(piece.text), SplitBehavior::merged_with_next, out);
  } else {
    out.push_back(std::move(piece));
  }
}

std::vector<Piece> PreTokenizer::apply(std::vector<Piece> pieces) const {
  for (const Step& step : steps_) {
    std::vector<Piece> out;
    out.reserve(pieces.size());
    for (Piece& piece : pieces) {
      if (piece.id != Piece::kNoId) {
        out.push_back(std::move(piece));
      } else {
        std::visit([&](const auto& s) { run(s, std::move(piece), out); }, step);
      }
    }
    pieces = std::move(out);
  }
  return pieces;
}

}  // namespace gqa
