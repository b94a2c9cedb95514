// What decoders do to tokens, one class each. A step takes tokens one by one and hands what becomes
// of them to the next step as soon as no later token can change it, so that whole lists and growing
// ones are decoded by the same code.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/metaspace.h"
#include "tokenizer/pattern.h"
#include "tokenizer/utf8_repair.h"

namespace gqa {

class DecodeStep {
 public:
  virtual ~DecodeStep() = default;
  void then(DecodeStep* next) { next_ = next; }
  /// A whole token, or, for steps after a fusing one, the next part of the only token.
  virtual void feed(std::string_view token) = 0;
  /// After the last token.
  virtual void finish() { next_->finish(); }

 protected:
  void send(std::string_view token) { next_->feed(token); }

 private:
  DecodeStep* next_ = nullptr;  ///< not owned
};

/// The end of every chain: all that arrives.
class CollectStep : public DecodeStep {
 public:
  void feed(std::string_view token) override { text += token; }
  void finish() override {}
  std::string text;
};

/// Holds the parts of a fused token back for a step that needs it whole.
class WholeTokenStep : public DecodeStep {
 public:
  void feed(std::string_view part) override { token_ += part; }
  void finish() override;

 private:
  std::string token_;
};

/// Without a decoder, tokens are joined by spaces.
class JoinStep : public DecodeStep {
 public:
  void feed(std::string_view token) override;

 private:
  bool first_ = true;
};

class ReplaceStep : public DecodeStep {
 public:
  explicit ReplaceStep(const Replacement& replacement) : replacement_(replacement) {}
  void feed(std::string_view token) override { send(replacement_.apply(token)); }

 private:
  const Replacement& replacement_;
};

/// Runs of tokens <0x00> to <0xFF> become text where the whole run is valid UTF-8, else one U+FFFD
/// per token: a run is known only when it has ended.
class ByteFallbackStep : public DecodeStep {
 public:
  void feed(std::string_view token) override;
  void finish() override;

 private:
  void end_run();
  std::string run_;
};

/// Up to `start` leading and `stop` trailing characters `content` of each token go.
struct StripOptions {
  char32_t content = U' ';
  size_t start = 0, stop = 0;
};

class StripStep : public DecodeStep {
 public:
  explicit StripStep(const StripOptions& options)
      : options_(options), content_(utf8(options.content)) {}
  void feed(std::string_view token) override;

 private:
  StripOptions options_;
  std::string content_;
};

/// The same for a fused token that comes in parts.
class StripFusedStep : public DecodeStep {
 public:
  explicit StripFusedStep(const StripOptions& options)
      : options_(options), content_(utf8(options.content)) {}
  void feed(std::string_view part) override;

 private:
  StripOptions options_;  ///< start: how many more may go
  std::string content_;
  std::string held_;  ///< `content` as often as the end may lose it
};

/// The replacement character becomes a space, in the first token nothing.
class MetaspaceStep : public DecodeStep {
 public:
  MetaspaceStep(const Metaspace& options, bool fused)
      : replacement_(utf8(options.replacement)),
        drop_(options.prepend != Metaspace::Prepend::never),
        fused_(fused) {}
  void feed(std::string_view token) override;

 private:
  std::string replacement_;
  bool drop_;  ///< in this token
  bool fused_;
};

/// Byte-level symbols become bytes; a token that has other characters stays as it is. All bytes
/// together are one text.
class ByteLevelStep : public DecodeStep {
 public:
  void feed(std::string_view token) override;
  void finish() override;

 private:
  Utf8Repair repair_;
};

}  // namespace gqa
