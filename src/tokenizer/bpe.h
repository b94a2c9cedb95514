// Byte-pair encoding (Sennrich et al. 2016): vocabulary and merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/joins.h"
#include "tokenizer/tokenizer_file.h"

namespace gqa {

/// What two neighbours become, and which pair goes first: the lowest rank.
struct Merge {
  int32_t rank = 0;
  int32_t id = 0;
};

/// A BPE model. Thread-safety: const functions may run at the same time.
class Bpe {
 public:
  /// Field `model` of the file. Throws Error (bad_data) where it is no BPE model, where ids are out
  /// of range or given twice, where merges name tokens that are not in the vocabulary, or where,
  /// other than at the byte level, some byte could not be encoded. `byte_level`: texts reach the
  /// model as byte-level symbols.
  static Bpe load(const TokenizerFile& file, bool byte_level);

  std::optional<int32_t> id_of(std::string_view token) const;
  /// Token and id, in the order of the file.
  const std::vector<std::pair<std::string, int64_t>>& vocab() const { return vocab_; }

  bool ignore_merges() const { return ignore_merges_; }
  /// Appends the ids that a character starts out as: its own, or those of its bytes. Vocabularies
  /// of the byte level may lack rare bytes (SmolLM2's lacks 0x04): those become the unknown token,
  /// a run of them one where the model says so, or nothing where there is none, as in `tokenizers`.
  /// after_unknown: what it said of the word's character before. Returns whether an unknown token
  /// stands last.
  bool append_character(std::string_view character, bool after_unknown,
                        std::vector<int32_t>& ids) const;
  const Merge* find_merge(int32_t left, int32_t right) const;
  /// Whether the symbols that a text starts out as may become parts of one token.
  bool may_join(int32_t left, int32_t right) const { return joins_.may_join(left, right); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
    size_t operator()(uint64_t pair) const {
      pair *= 0x9e3779b97f4a7c15u;  // 2^64 divided by the golden ratio: neighbours lie far apart
      return pair ^ (pair >> 32);
    }
  };
  void load_vocab(const TokenizerFile& file);
  void load_merges(const TokenizerFile& file);
  /// Whether every byte has a token; only at the byte level may some have none.
  bool load_bytes(const JsonFields& model, bool byte_level);
  void load_unknown(const JsonFields& model, bool complete);
  std::vector<int32_t> symbols() const;

  std::vector<std::pair<std::string, int64_t>> vocab_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<char32_t, int32_t> characters_;  ///< tokens of one character
  std::unordered_map<uint64_t, Merge, Hash> merges_;
  Joins joins_;
  std::vector<int32_t> bytes_;      ///< with byte fallback: the ids of <0x00> to <0xFF>; else empty
  std::optional<int32_t> unknown_;  ///< what bytes without a token become, if anything
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace gqa
