#include "tokenizer/word_encoder.h"

#include <algorithm>
#include <limits>

#include "core/fail.h"
#include "core/text.h"

namespace gqa {
namespace {

constexpr size_t kMaxSeen = 1 << 16;
constexpr size_t kMaxSeenSymbols = 32;  // longer parts hardly come again

}  // namespace

void WordEncoder::encode(std::string_view word, std::vector<int32_t>& ids) {
  if (bpe_.ignore_merges()) {
    if (const auto id = bpe_.id_of(word)) {
      ids.push_back(*id);
      return;
    }
  }
  start_.clear();
  bool unknown = false;
  for (size_t at = 0; at < word.size();) {
    const size_t n = static_cast<size_t>(utf8_length(word, at));
    unknown = bpe_.append_character(word.substr(at, n), unknown, start_);
    at += n;
  }
  const std::span<const int32_t> all(start_);
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin + 1;
    while (end < all.size() && bpe_.may_join(all[end - 1], all[end])) ++end;
    encode_part(all.subspan(begin, end - begin), ids);
    begin = end;
  }
}

void WordEncoder::encode_part(std::span<const int32_t> start, std::vector<int32_t>& ids) {
  if (start.size() == 1) {
    ids.push_back(start[0]);
    return;
  }
  std::string key;
  if (start.size() <= kMaxSeenSymbols) {
    key.assign(reinterpret_cast<const char*>(start.data()), start.size_bytes());
    if (const auto it = seen_.find(key); it != seen_.end()) {
      ids.insert(ids.end(), it->second.begin(), it->second.end());
      return;
    }
  }
  const size_t before = ids.size();
  merge_all(start);
  for (const Symbol& s : symbols_) {
    if (!s.gone) ids.push_back(s.id);
  }
  if (!key.empty() && seen_.size() < kMaxSeen) {
    seen_.emplace(std::move(key),
                  std::vector<int32_t>(ids.begin() + static_cast<int64_t>(before), ids.end()));
  }
}

void WordEncoder::add_candidate(int32_t left) {
  const Symbol& symbol = symbols_[static_cast<size_t>(left)];
  if (symbol.next < 0) return;
  const Merge* merge = bpe_.find_merge(symbol.id, symbols_[static_cast<size_t>(symbol.next)].id);
  if (merge != nullptr) heap_.push_back({*merge, left});
}

bool WordEncoder::is_stale(const Candidate& candidate) const {
  const Symbol& symbol = symbols_[static_cast<size_t>(candidate.left)];
  if (symbol.gone || symbol.next < 0) return true;
  const Merge* merge = bpe_.find_merge(symbol.id, symbols_[static_cast<size_t>(symbol.next)].id);
  // Another pair may have come to stand here; if it gives the same token, it is merged now.
  return merge == nullptr || merge->id != candidate.merge.id;
}

void WordEncoder::merge_all(std::span<const int32_t> start) {
  if (start.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    fail(ErrorKind::resources, "{} characters are too many to encode as one word", start.size());
  }
  const int32_t count = static_cast<int32_t>(start.size());
  symbols_.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols_.push_back({start[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1, false});
  }
  heap_.clear();
  for (int32_t i = 0; i < count; ++i) add_candidate(i);
  std::make_heap(heap_.begin(), heap_.end(), Later{});
  const auto push = [&](int32_t left) {
    const size_t before = heap_.size();
    add_candidate(left);
    if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), Later{});
  };
  while (!heap_.empty()) {
    const Candidate best = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), Later{});
    heap_.pop_back();
    if (is_stale(best)) continue;
    Symbol& left = symbols_[static_cast<size_t>(best.left)];
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    left.id = best.merge.id;
    left.next = right.next;
    right.gone = true;
    if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = best.left;
    if (left.previous >= 0) push(left.previous);
    push(best.left);
  }
}

}  // namespace gqa
