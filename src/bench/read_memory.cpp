#include "bench/read_memory.h"

#include <algorithm>
#include <atomic>

#include "core/checked.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/read_memory.cpp"
#include "kernels/targets.h"
//
#include "hwy/foreach_target.h"
// This comes after foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Reads n bytes, but for a last part of less than 4 vectors. The result depends on all of them, so
/// that no load can be left out.
uint8_t Read(const uint8_t* p, size_t n) {
  const hn::ScalableTag<uint8_t> d;
  const size_t lanes = hn::Lanes(d);
  auto a = hn::Zero(d);
  auto b = a;
  auto c = a;
  auto e = a;
  for (size_t i = 0; i + 4 * lanes <= n; i += 4 * lanes) {
    a = hn::Or(a, hn::LoadU(d, p + i));
    b = hn::Or(b, hn::LoadU(d, p + i + lanes));
    c = hn::Or(c, hn::LoadU(d, p + i + 2 * lanes));
    e = hn::Or(e, hn::LoadU(d, p + i + 3 * lanes));
  }
  const auto all = hn::Or(hn::Or(a, b), hn::Or(c, e));
  return hn::AllTrue(d, hn::Eq(all, hn::Zero(d))) ? 0 : 1;
}

}  // namespace gqa::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gqa::bench {
namespace {

HWY_EXPORT(Read);

/// Small enough to share out evenly, large enough for prefetchers to follow.
constexpr int64_t piece_bytes = int64_t{256} << 10;

}  // namespace

void append_pieces(std::span<const std::byte> memory, std::vector<Piece>& pieces) {
  while (!memory.empty()) {
    const size_t n = std::min(memory.size(), static_cast<size_t>(piece_bytes));
    pieces.push_back(memory.first(n));
    memory = memory.subspan(n);
  }
}

void append_pages(const detail::KvLayer& layer, KeyRange keys, std::vector<Piece>& pieces) {
  const int64_t begin = keys.begin / KvCache::page_size;
  const int64_t end = ceil_div(keys.end, KvCache::page_size);
  for (int64_t head = 0; head < layer.kv_heads; ++head) {
    for (int64_t block = begin; block < end;) {
      // Parts that lie one behind the other are one piece.
      Piece memory = layer.part(block, head);
      while (++block < end && layer.part(block, head).data() == memory.data() + memory.size()) {
        memory = {memory.data(), memory.size() + layer.part(block, head).size()};
      }
      append_pieces(memory, pieces);
    }
  }
}

int64_t total_bytes(std::span<const Piece> pieces) {
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += std::ssize(piece);
  return bytes;
}

void read_memory(ThreadPool& pool, std::span<const Piece> pieces) {
  if (pieces.empty()) return;
  // Small pages go to a thread together.
  const int64_t lump = std::max<int64_t>(1, piece_bytes / std::ssize(pieces.front()));
  std::atomic<uint8_t> found{0};
  pool.parallel_for(ceil_div(std::ssize(pieces), lump), [&](int64_t index, int) {
    const auto mine = pieces.subspan(static_cast<size_t>(index * lump));
    uint8_t bits = 0;
    for (const Piece& piece : mine.first(std::min(mine.size(), static_cast<size_t>(lump)))) {
      bits |=
          HWY_DYNAMIC_DISPATCH(Read)(reinterpret_cast<const uint8_t*>(piece.data()), piece.size());
    }
    found.fetch_or(bits, std::memory_order_relaxed);
  });
}

}  // namespace gqa::bench
#endif  // HWY_ONCE
