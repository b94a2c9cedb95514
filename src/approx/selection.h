// Which keys the tokens of a slice have chosen, and attention to them.
#pragma once

#include <cstdint>
#include <vector>

#include "approx/variant.h"

namespace gqa {

/// Query tokens are worked on so many at a time: what they choose stays small.
inline constexpr int64_t slice_tokens = 128;

/// Words of AttendItem::selected for n query tokens from `first` on.
class Selection {
 public:
  Selection(const Call& call, int64_t first, int64_t n)
      : first_(first),
        n_(n),
        row_(ceil_div(call.len(), KvCache::page_size)),
        words_(static_cast<size_t>(n * call.kv_heads() * row_), 0) {
    head_stride_ = row_;
    token_stride_ = row_ * call.kv_heads();
  }

  int64_t first() const { return first_; }
  int64_t n() const { return n_; }
  /// Of query token t (counted as the call does) and a KV head; one for each page up to len.
  uint64_t* words(int64_t t, int64_t kv_head) {
    return words_.data() + (t - first_) * token_stride_ + kv_head * head_stride_;
  }
  KeySelection view() const { return {words_.data(), token_stride_, head_stride_}; }

 private:
  int64_t first_, n_, row_;
  std::vector<uint64_t> words_;
  int64_t head_stride_ = 0, token_stride_ = 0;
};

/// For variants that choose keys token by token: all keys, exact, of those chosen.
class Choosing : public Variant {
 public:
  void attend(const Call& call, Tally& tally) final;

 protected:
  /// What one thread works in is the variant's own business; `thread` counts them.
  virtual void prepare(const Call& call) = 0;
  /// Sets the bits of the keys that query tokens [t, t + n) see in a KV head; keys behind a token
  /// may be set. chosen [n]: how many of what is counted were chosen. Called from many threads.
  virtual void choose(const Call& call, int64_t kv_head, int64_t t, int64_t n, int thread,
                      Selection& selection, int64_t* chosen) = 0;
  /// Bytes that it took to choose for a token at `position`, in one KV head.
  virtual double choice_bytes(const Call& call, int64_t position) const = 0;
};

}  // namespace gqa
