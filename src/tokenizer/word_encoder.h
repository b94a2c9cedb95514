// Words to token ids.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/bpe.h"

namespace gqa {

/// Encodes the words of one text: keeps scratch memory and what it has seen. A word may be a whole
/// document: it is cut where no merge can reach across, and a part of n symbols takes O(n log n).
class WordEncoder {
 public:
  explicit WordEncoder(const Bpe& bpe) : bpe_(bpe) {}
  void encode(std::string_view word, std::vector<int32_t>& ids);

 private:
  /// A link of the list of symbols that are left; merging keeps the left one.
  struct Symbol {
    int32_t id;
    int32_t previous, next;  ///< -1: none
    bool gone;
  };
  struct Candidate {
    Merge merge;
    int32_t left;  ///< index of the left symbol
  };
  /// Heaps have the greatest on top: the lowest rank, then the leftmost.
  struct Later {
    bool operator()(const Candidate& a, const Candidate& b) const {
      return a.merge.rank != b.merge.rank ? a.merge.rank > b.merge.rank : a.left > b.left;
    }
  };

  void encode_part(std::span<const int32_t> start, std::vector<int32_t>& ids);
  void merge_all(std::span<const int32_t> start);
  void add_candidate(int32_t left);
  bool is_stale(const Candidate& candidate) const;

  const Bpe& bpe_;
  std::vector<int32_t> start_;  ///< the word before any merge
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::unordered_map<std::string, std::vector<int32_t>>
      seen_;  ///< by the bytes of a part's symbols
};

}  // namespace gqa
