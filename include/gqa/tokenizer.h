// Text to token ids and back, as a tokenizer.json describes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gqa {
#pragma GCC visibility push(default)

/// A byte-pair-encoding tokenizer: Llama 2 kind (SentencePiece-like, byte fallback) or byte-level
/// (GPT-2, Llama 3). Gives the ids and texts that the `tokenizers` package gives.
/// Thread-safety: const functions may run at the same time.
class Tokenizer {
 public:
  /// Reads a tokenizer.json and checks all of it, also that every byte can be encoded. Throws
  /// Error: no_input where it is missing, bad_data (naming file and field) where it is not valid or
  /// uses a component that is not supported.
  static Tokenizer load(const std::filesystem::path& file);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Token ids of a UTF-8 text. No BOS or other special token is added; those that stand in the
  /// text are recognised. Throws Error (bad_data) for invalid UTF-8, giving the byte's offset.
  std::vector<int32_t> encode(std::string_view text) const;

  /// The text of token ids. Ids that the tokenizer does not know are left out, as are special
  /// tokens if skip_special. Bytes that form no valid UTF-8 become U+FFFD.
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  /// One more than the highest id.
  int64_t id_limit() const;
  bool is_special(int32_t id) const;

 private:
  friend class TextStream;
  struct [[gnu::visibility("hidden")]] Impl;
  std::unique_ptr<Impl> impl_;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
};

/// Decodes a growing list of ids piece by piece: the pieces concatenated are decode() of all ids,
/// and no piece ends inside a UTF-8 sequence. The tokenizer must outlive it, but may be moved.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special = true);
  ~TextStream();
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;

  /// What the next id adds; empty where that depends on ids to come (a character's bytes; with byte
  /// fallback, a run of byte tokens up to its end).
  std::string push(int32_t id);
  /// What is still held back. The stream then starts anew.
  std::string finish();

 private:
  struct [[gnu::visibility("hidden")]] State;
  std::unique_ptr<State> state_;
};

#pragma GCC visibility pop
}  // namespace gqa
