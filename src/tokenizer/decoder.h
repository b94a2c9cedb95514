// Tokens to text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/decode_steps.h"

namespace gqa {

/// A list of tokens on its way to a text.
class DecodeChain {
 public:
  void push(std::string_view token) { steps_.front()->feed(token); }
  void finish() { steps_.front()->finish(); }
  /// The text that came out since the last call. It never ends inside a character.
  std::string take() { return std::exchange(end_->text, {}); }

 private:
  friend class Decoder;
  void add(std::unique_ptr<DecodeStep> step);
  std::vector<std::unique_ptr<DecodeStep>> steps_;
  CollectStep* end_ = nullptr;
};

class Decoder {
 public:
  /// Field `decoder` of the file.
  static Decoder load(const JsonFields& top);
  /// Decodes one list of tokens. The decoder must outlive it.
  DecodeChain start() const;

 private:
  struct ByteFallback {};
  struct Fuse {};
  struct ByteLevel {};
  struct Join {};
  using Step =
      std::variant<Join, Replacement, ByteFallback, Fuse, StripOptions, Metaspace, ByteLevel>;

  void add(const JsonFields& fields, const std::string& type);
  static void add_step(const Step& step, bool fused, DecodeChain& chain);

  std::vector<Step> steps_;
};

}  // namespace gqa
