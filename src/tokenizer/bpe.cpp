#include "tokenizer/bpe.h"

#include <limits>
#include <unordered_set>

#include "core/fail.h"
#include "core/text.h"
#include "tokenizer/byte_level.h"

namespace gqa {
namespace {

constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max() - 1;

void check_type(const JsonFields& model, const TokenizerFile& file) {
  // Files of the first tokenizers have no type; a BPE model is then told by its merges.
  if (!model.has("type") && file.has_vocab && file.has_merges) return;
  const std::string type = model.string("type");
  if (type != "BPE") {
    fail(ErrorKind::bad_data, "{}: expected BPE, got {}, which is not supported",
         model.where("type"), type);
  }
}

/// Options that change what BPE does and that no Llama tokenizer has.
void refuse_options(const JsonFields& model) {
  if (const auto dropout = model.maybe_number("dropout", 0.0, 1.0); dropout && *dropout != 0.0) {
    fail(ErrorKind::bad_data, "{}: expected null or 0, got {}", model.where("dropout"), *dropout);
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto affix = model.maybe_string(key);
    if (affix && !affix->empty()) {
      fail(ErrorKind::bad_data, "{}: expected null, got \"{}\", which is not supported",
           model.where(key), *affix);
    }
  }
}

}  // namespace

Bpe Bpe::load(const TokenizerFile& file, bool byte_level) {
  const JsonFields model = JsonFields(file.rest, file.path).object("model");
  check_type(model, file);
  refuse_options(model);
  if (!file.has_vocab) JsonFields(model.get("vocab"), file.path, "model.vocab");  // not an object
  if (!file.has_merges) {
    fail(ErrorKind::bad_data, "{}: expected a list, got {}", model.where("merges"),
         model.get("merges").type_name());
  }
  Bpe bpe;
  bpe.ignore_merges_ = model.boolean("ignore_merges", false);
  bpe.load_vocab(file);
  const bool complete = bpe.load_bytes(model, byte_level);
  bpe.load_unknown(model, complete);
  bpe.load_merges(file);
  return bpe;
}

void Bpe::load_vocab(const TokenizerFile& file) {
  vocab_ = file.vocab;
  ids_.reserve(vocab_.size());
  std::unordered_set<int64_t> taken(vocab_.size());
  for (const auto& [token, id] : vocab_) {
    const auto where = [&, &t = token] {
      return fmt::format("{}: field `model.vocab`: token \"{}\"", file.path.string(), t);
    };
    if (id < 0 || id > kMaxId) {
      fail(ErrorKind::bad_data, "{}: expected an id from 0 to {}, got {}", where(), kMaxId, id);
    }
    if (!taken.insert(id).second) {
      fail(ErrorKind::bad_data, "{}: id {} is another token's, too", where(), id);
    }
    if (!ids_.emplace(token, static_cast<int32_t>(id)).second) {
      fail(ErrorKind::bad_data, "{}: given twice", where());
    }
    if (!token.empty() && static_cast<size_t>(utf8_length(token, 0)) == token.size()) {
      characters_.emplace(utf8_decode(token, 0), static_cast<int32_t>(id));
    }
  }
}

void Bpe::load_merges(const TokenizerFile& file) {
  if (file.merges.size() > static_cast<size_t>(kMaxId)) {
    fail(ErrorKind::bad_data, "{}: field `model.merges`: too many", file.path.string());
  }
  merges_.reserve(file.merges.size());
  std::vector<MergeIds> all;
  all.reserve(file.merges.size());
  int32_t rank = 0;
  for (const auto& [left, right] : file.merges) {
    const auto known = [&](const std::string& token) {
      const auto id = id_of(token);
      if (!id) {
        fail(ErrorKind::bad_data,
             "{}: field `model.merges[{}]`: token \"{}\" is not in the vocabulary",
             file.path.string(), rank, token);
      }
      return *id;
    };
    const MergeIds m{known(left), known(right), known(left + right)};
    merges_[pair_key(m.left, m.right)] = {rank,
                                          m.result};  // of a pair given twice, the last counts
    all.push_back(m);
    ++rank;
  }
  joins_ = Joins(all, symbols());
}

std::vector<int32_t> Bpe::symbols() const {
  std::vector<int32_t> ids = bytes_;
  for (const auto& [character, id] : characters_) ids.push_back(id);
  if (unknown_) ids.push_back(*unknown_);
  return ids;
}

void Bpe::load_unknown(const JsonFields& model, bool complete) {
  const auto token = model.maybe_string("unk_token");
  fuse_unknown_ = model.boolean("fuse_unk", false);
  if (!token || !bytes_.empty() || complete) return;
  unknown_ = id_of(*token);
  if (!unknown_) {
    fail(ErrorKind::bad_data, "{}: token \"{}\" is not in the vocabulary", model.where("unk_token"),
         *token);
  }
}

bool Bpe::load_bytes(const JsonFields& model, bool byte_level) {
  const bool fallback = model.boolean("byte_fallback", false);
  if (!fallback && !byte_level) {
    fail(ErrorKind::bad_data,
         "{}: expected true, got false: without byte fallback or a ByteLevel pre-tokenizer, byte "
         "0x00 "
         "can't be encoded",
         model.where("byte_fallback"));
  }
  bool complete = true;
  std::vector<int32_t> bytes;
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    const std::string token = fmt::format("<0x{:02X}>", b);
    const std::string symbol = byte_level ? byte_level_symbols({&byte, 1}) : token;
    const bool known = id_of(symbol).has_value();
    complete = complete && known;
    if (!known && !byte_level) {
      fail(ErrorKind::bad_data, "{}: token \"{}\" is missing, so byte 0x{:02x} can't be encoded",
           model.where("vocab"), symbol, b);
    }
    if (const auto id = id_of(token); fallback && id) bytes.push_back(*id);
  }
  if (bytes.size() == 256) bytes_ = std::move(bytes);
  return complete;
}

std::optional<int32_t> Bpe::id_of(std::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

bool Bpe::append_character(std::string_view character, bool after_unknown,
                           std::vector<int32_t>& ids) const {
  if (const auto it = characters_.find(utf8_decode(character, 0)); it != characters_.end()) {
    ids.push_back(it->second);
    return false;
  }
  if (!bytes_.empty()) {
    for (const char c : character) ids.push_back(bytes_[static_cast<unsigned char>(c)]);
    return false;
  }
  if (!unknown_) return false;
  if (!after_unknown || !fuse_unknown_) ids.push_back(*unknown_);
  return true;
}

const Merge* Bpe::find_merge(int32_t left, int32_t right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

}  // namespace gqa
