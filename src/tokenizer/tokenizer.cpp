#include "gqa/tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "core/fail.h"
#include "core/text.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer_file.h"
#include "tokenizer/word_encoder.h"

namespace gqa {

struct Tokenizer::Impl {
  /// What an id is when it is decoded.
  struct Token {
    std::string text;
    bool skipped = false;  ///< where special tokens are left out
    bool special = false;
  };

  explicit Impl(const TokenizerFile& file);
  const Token* find(int32_t id) const {
    const auto it = tokens.find(id);
    return it == tokens.end() ? nullptr : &it->second;
  }

  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  AddedTokens added;
  Decoder decoder;
  std::unordered_map<int32_t, Token> tokens;
  int64_t id_limit = 0;

 private:
  void fill_tokens();
};

Tokenizer::Impl::Impl(const TokenizerFile& file) {
  const JsonFields top(file.rest, file.path);
  top.object("model");  // a file that is something else altogether: say so first
  if (const auto version = top.maybe_string("version"); version && *version != "1.0") {
    fail(ErrorKind::bad_data, "{}: expected 1.0, got {}", top.where("version"), *version);
  }
  normalizer = Normalizer::load(top);
  pre_tokenizer = PreTokenizer::load(top);
  bpe = Bpe::load(file, normalizer.to_byte_level() || pre_tokenizer.to_byte_level());
  added = AddedTokens::load(top, normalizer, bpe);
  decoder = Decoder::load(top);
  fill_tokens();
}

void Tokenizer::Impl::fill_tokens() {
  for (const auto& [token, id] : bpe.vocab()) {
    tokens[static_cast<int32_t>(id)].text = token;
    id_limit = std::max(id_limit, id + 1);
  }
  std::unordered_map<std::string_view, bool> special;
  for (const AddedToken& t : added.all()) {
    Token& token = tokens[t.id];
    token.text = t.normal_form;
    token.special = t.special;
    if (t.special) special.emplace(t.content, true);
    id_limit = std::max<int64_t>(id_limit, int64_t{t.id} + 1);
  }
  // The package tells special tokens by what they decode to, so that a normalised form that differs
  // from its token's content is kept.
  for (auto& [id, token] : tokens) token.skipped = special.contains(token.text);
}

Tokenizer Tokenizer::load(const std::filesystem::path& file) {
  return Tokenizer(std::make_unique<Impl>(TokenizerFile::read(file)));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  if (const auto bad = find_invalid_utf8(text)) {
    fail(ErrorKind::bad_data, "text is not UTF-8: byte 0x{:02x} at offset {}",
         static_cast<unsigned char>(text[*bad]), *bad);
  }
  std::vector<int32_t> ids;
  WordEncoder encoder(impl_->bpe);
  const std::vector<Piece> pieces =
      impl_->pre_tokenizer.apply(impl_->added.split(text, impl_->normalizer));
  for (const Piece& piece : pieces) {
    if (piece.id != Piece::kNoId) {
      ids.push_back(piece.id);
    } else {
      encoder.encode(piece.text, ids);
    }
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  TextStream stream(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text += stream.finish();
}

int64_t Tokenizer::id_limit() const { return impl_->id_limit; }

bool Tokenizer::is_special(int32_t id) const {
  const Impl::Token* token = impl_->find(id);
  return token != nullptr && token->special;
}

struct TextStream::State {
  const Tokenizer::Impl* tokenizer;
  bool skip_special;
  DecodeChain chain;
};

TextStream::TextStream(const Tokenizer& tokenizer, bool skip_special)
    : state_(new State{tokenizer.impl_.get(), skip_special, tokenizer.impl_->decoder.start()}) {}
TextStream::~TextStream() = default;
TextStream::TextStream(TextStream&&) noexcept = default;
TextStream& TextStream::operator=(TextStream&&) noexcept = default;

std::string TextStream::push(int32_t id) {
  const Tokenizer::Impl::Token* token = state_->tokenizer->find(id);
  if (token == nullptr || (state_->skip_special && token->skipped)) return {};
  state_->chain.push(token->text);
  return state_->chain.take();
}

std::string TextStream::finish() {
  state_->chain.finish();
  std::string rest = state_->chain.take();
  state_->chain = state_->tokenizer->decoder.start();
  return rest;
}

}  // namespace gqa
