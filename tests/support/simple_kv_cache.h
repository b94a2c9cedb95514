// A KV cache as one writes it first, to compare the real one with: pages are shared_ptrs, copied
// where somebody else has them too; what they hold is names of tokens.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "gqa/kv_cache.h"

namespace gqa::test {

class SimpleKvCache {
 public:
  static constexpr int64_t page_size = 64;

  /// Pages of one size: those alive count themselves.
  struct Pool {
    SimpleKvCache* cache;
    int64_t page_bytes;
    int64_t live = 0;
    int64_t free = 0;
  };

  struct Page {
    explicit Page(Pool& p) : pool(&p) { enter(); }
    Page(const Page& other) : pool(other.pool), tokens(other.tokens) { enter(); }
    Page& operator=(const Page&) = delete;
    ~Page() {
      --pool->live;
      ++pool->free;
    }

    Pool* pool;
    std::array<uint32_t, page_size> tokens{};
    int64_t counted = 0;  ///< by the last shared_pages()

   private:
    void enter() {
      if (pool->free > 0) {
        --pool->free;
      } else {
        pool->cache->make_room();
      }
      ++pool->live;
    }
  };

  struct Layer {
    Pool* pool;
    int64_t len = 0;
    std::vector<std::shared_ptr<Page>> pages;  ///< null: released

    bool holds(int64_t token) const {
      return pages[static_cast<size_t>(token / page_size)] != nullptr;
    }
    uint32_t& token(int64_t t) const {
      return pages[static_cast<size_t>(t / page_size)]->tokens[static_cast<size_t>(t % page_size)];
    }
  };
  using Sequence = std::vector<Layer>;

  /// A layer that is about to get more tokens.
  struct Growth {
    Layer* layer;
    int64_t tokens;
  };

  SimpleKvCache(const KvShape& shape, int64_t max_pages) : max_pages_(max_pages) {
    for (int64_t layer = 0; layer < shape.n_layers(); ++layer) {
      const int64_t bytes = shape.page_bytes(layer);
      auto pool = std::find_if(pools.begin(), pools.end(),
                               [&](const Pool& p) { return p.page_bytes == bytes; });
      if (pool == pools.end()) pool = pools.insert(pools.end(), Pool{this, bytes});
      empty.push_back({&*pool, 0, {}});
    }
  }
  SimpleKvCache(const SimpleKvCache&) = delete;
  SimpleKvCache& operator=(const SimpleKvCache&) = delete;

  std::deque<Pool> pools;
  Sequence empty;
  std::map<int64_t, Sequence> sequences;  ///< by the real cache's ids

  static int64_t len(const Sequence& s) {
    return std::min_element(s.begin(), s.end(), [](auto& a, auto& b) { return a.len < b.len; })
        ->len;
  }

  /// Whether a sequence may end behind `len` tokens.
  static bool may_end(const Sequence& s, int64_t len) {
    if (len < 0 || len > SimpleKvCache::len(s)) return false;
    return len == 0 ||
           std::all_of(s.begin(), s.end(), [&](const Layer& l) { return l.holds(len - 1); });
  }

  static void shorten(Layer& layer, int64_t len) {
    layer.len = len;
    layer.pages.resize(std::min(layer.pages.size(), static_cast<size_t>(blocks(len))));
  }

  static void release(Layer& layer, int64_t begin, int64_t end) {
    for (int64_t page = 0; page < std::ssize(layer.pages); ++page) {
      if (page * page_size >= begin && (page + 1) * page_size <= end) {
        layer.pages[static_cast<size_t>(page)].reset();
      }
    }
  }

  /// Pages that growing takes: of those that sharers are to write into, the last one to write may
  /// keep the original if nobody else has it.
  static int64_t needed(std::span<const Growth> growths) {
    int64_t pages = 0;
    std::map<const Page*, std::pair<int64_t, int64_t>> written;  // holders, writers
    for (const auto& [layer, tokens] : growths) {
      pages += std::max<int64_t>(0, blocks(layer->len + tokens) - std::ssize(layer->pages));
      if (const auto* page = partial(*layer); page && tokens > 0) {
        auto& [holders, writers] = written[page->get()];
        holders = page->use_count();
        ++writers;
      }
    }
    for (const auto& [page, count] : written) pages += std::min(count.first - 1, count.second);
    return pages;
  }

  static void grow(std::span<const Growth> growths) {
    for (const auto& [layer, tokens] : growths) {
      auto* page = partial(*layer);
      if (page && tokens > 0 && page->use_count() > 1) *page = std::make_shared<Page>(**page);
      while (std::ssize(layer->pages) < blocks(layer->len + tokens)) {
        layer->pages.push_back(std::make_shared<Page>(*layer->pool));
      }
    }
  }

  /// Pages that can still be taken; without a budget, many.
  int64_t left() const {
    int64_t left = max_pages_ == 0 ? int64_t{1} << 31 : max_pages_;
    for (const Pool& pool : pools) left -= pool.live;
    return left;
  }

  KvUsage usage() {
    KvUsage usage;
    usage.shared_pages = shared_pages();
    for (const Pool& pool : pools) {
      usage.pages += pool.live;
      usage.bytes += pool.live * pool.page_bytes;
      usage.free_pages += pool.free;
      usage.free_bytes += pool.free * pool.page_bytes;
    }
    return usage;
  }

  /// Bytes of the tokens whose pages are there.
  static int64_t used_bytes(const Sequence& s) {
    int64_t bytes = 0;
    for (const Layer& layer : s) {
      for (int64_t t = 0; t < layer.len; t += page_size) {
        if (!layer.holds(t)) continue;
        bytes += std::min(page_size, layer.len - t) * layer.pool->page_bytes / page_size;
      }
    }
    return bytes;
  }

 private:
  static int64_t blocks(int64_t len) { return (len + page_size - 1) / page_size; }

  /// The page with some tokens and room for more, or null.
  static std::shared_ptr<Page>* partial(Layer& layer) {
    if (layer.len % page_size == 0) return nullptr;
    return &layer.pages[static_cast<size_t>(layer.len / page_size)];
  }

  /// A page of memory is needed: where free ones use up the budget, one goes.
  void make_room() {
    if (max_pages_ == 0) return;
    int64_t unused = left();
    for (const Pool& pool : pools) unused -= pool.free;
    if (unused > 0) return;
    std::find_if(pools.begin(), pools.end(), [](const Pool& p) { return p.free > 0; })->free--;
  }

  int64_t shared_pages() {
    ++round_;
    int64_t shared = 0;
    for (const auto& [id, sequence] : sequences) {
      for (const Layer& layer : sequence) {
        for (const auto& page : layer.pages) {
          if (page.use_count() < 2 || std::exchange(page->counted, round_) == round_) continue;
          ++shared;
        }
      }
    }
    return shared;
  }

  int64_t max_pages_;
  int64_t round_ = 0;
};

}  // namespace gqa::test
