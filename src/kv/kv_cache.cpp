// KvCache: sequences and their page tables.
#include "gqa/kv_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <new>
#include <string_view>
#include <utility>

#include "core/fail.h"
#include "kernels/context.h"
#include "kv/page_claim.h"
#include "kv/page_pool.h"
#include "kv/pages.h"
#include "kv/tokens.h"

namespace gqa {
namespace {

using detail::KvLayer;
constexpr int64_t page_size = KvCache::page_size;

/// Lies where it was made: views point to its layers.
struct Sequence {
  std::vector<KvLayer> layers;

  int64_t len() const {
    int64_t shortest = layers.front().len;
    for (const KvLayer& layer : layers) shortest = std::min(shortest, layer.len);
    return shortest;
  }

  /// Refuses to end behind `len` tokens where they are not there, or the last of them was released:
  /// what comes next would see it, or be written into its page.
  void check_end(int64_t len, std::string_view what) const {
    require(len >= 0 && len <= this->len(), "KV cache: can't {} at {}: the sequence has {} tokens",
            what, len, this->len());
    const auto holds_last = [&](const KvLayer& layer) {
      return layer.holds((len - 1) / page_size);
    };
    require(len == 0 || std::all_of(layers.begin(), layers.end(), holds_last),
            "KV cache: can't {} at {}: token {} was released", what, len, len - 1);
  }
};

uint64_t new_generation() noexcept {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

/// Keeps the first `len` tokens.
void shorten(KvLayer& layer, int64_t len) noexcept {
  if (len < layer.len) layer.generation = new_generation();
  const auto kept = static_cast<size_t>(ceil_div(len, page_size));
  while (layer.pages.size() > kept) {
    if (layer.pages.back() == KvLayer::released_page) {
      --layer.released;
    } else {
      layer.pool->drop(layer.pages.back());
    }
    layer.pages.pop_back();
  }
  layer.len = len;
}

int64_t token_bytes(const KvLayer& layer) { return layer.pool->page_bytes() / page_size; }

/// Calls f; says Error where the system's memory ends.
template <typename F>
auto or_out_of_memory(F&& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::resources, "KV cache: out of memory");
  }
}

void check_shape(std::string_view name, const AnyView<3>& x, int64_t n, int64_t heads,
                 int64_t dim) {
  const std::array<int64_t, 3> expected{n, heads, dim};
  require(n >= 0 && x.shape == expected, "KV cache: {} has shape [{}], expected [{}]", name,
          fmt::join(x.shape, ", "), fmt::join(expected, ", "));
}

}  // namespace

struct KvCache::Impl {
  KvShape shape;
  int64_t max_pages;
  PageStore store;
  Sequence empty;                                    ///< what create() copies
  std::vector<std::unique_ptr<Sequence>> sequences;  ///< null: freed
  std::vector<int64_t> freed;                        ///< ids; has room for all
  std::vector<int64_t> growing;                      ///< ids; what reserve() works in

  Impl(KvShape s, int64_t pages) : shape(std::move(s)), max_pages(pages), store(pages) {}

  Sequence& at(int64_t id) const {
    require(id >= 0 && id < std::ssize(sequences) && sequences[static_cast<size_t>(id)],
            "KV cache: no sequence {}", id);
    return *sequences[static_cast<size_t>(id)];
  }

  KvLayer& at(int64_t id, int64_t layer) const {
    Sequence& sequence = at(id);
    require(layer >= 0 && layer < shape.n_layers(), "KV cache: no layer {} of {}", layer,
            shape.n_layers());
    return sequence.layers[static_cast<size_t>(layer)];
  }

  int64_t adopt(std::unique_ptr<Sequence> sequence) {
    for (KvLayer& layer : sequence->layers) layer.generation = new_generation();
    if (freed.empty()) {
      if (freed.capacity() <= sequences.size()) freed.reserve(2 * sequences.size() + 1);
      sequences.push_back(std::move(sequence));
      return std::ssize(sequences) - 1;
    }
    const int64_t id = freed.back();
    freed.pop_back();
    sequences[static_cast<size_t>(id)] = std::move(sequence);
    return id;
  }
};

KvCache::KvCache(KvShape shape, int64_t max_pages) {
  require(!shape.kv_heads.empty(), "KV cache: no layers");
  require(shape.head_dim >= 1 && shape.v_head_dim >= 1,
          "KV cache: head sizes {} and {}, expected 1 or more", shape.head_dim, shape.v_head_dim);
  require(max_pages >= 0, "KV cache: max_pages is {}, expected 0 or more", max_pages);
  impl_ = std::make_unique<Impl>(std::move(shape), max_pages);
  const KvShape& s = impl_->shape;
  for (int64_t i = 0; i < s.n_layers(); ++i) {
    const int64_t heads = s.kv_heads[static_cast<size_t>(i)];
    require(heads >= 1, "KV cache: {} KV heads, expected 1 or more", heads);
    // With 4 bytes an element and one element more than there are, no type takes more.
    const auto dims = checked_add(checked_add(s.head_dim, s.v_head_dim).value_or(-1), 2);
    const auto width = checked_mul(dims.value_or(-1), heads);
    if (!checked_mul(width.value_or(-1), page_size * 4))
      fail(ErrorKind::resources, "KV cache: {} KV heads of a page do not fit", heads);
    KvLayer layer;
    layer.kv_heads = heads;
    layer.head_dim = s.head_dim;
    layer.v_head_dim = s.v_head_dim;
    layer.dtype = s.dtype;
    layer.in_panels = kernels::tables().front()->panels && !is_quantised(s.dtype);
    layer.pool = &impl_->store.pool(s.page_bytes(i) / heads, heads);
    impl_->empty.layers.push_back(std::move(layer));
  }
}

KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

const KvShape& KvCache::shape() const { return impl_->shape; }
int64_t KvCache::max_pages() const { return impl_->max_pages; }

int64_t KvCache::create() {
  return or_out_of_memory([&] { return impl_->adopt(std::make_unique<Sequence>(impl_->empty)); });
}

int64_t KvCache::fork(int64_t sequence, int64_t len) {
  const Sequence& from = impl_->at(sequence);
  from.check_end(len, "fork");
  const auto kept = ceil_div(len, page_size);
  return or_out_of_memory([&] {
    auto fork = std::make_unique<Sequence>(impl_->empty);
    for (size_t i = 0; i < fork->layers.size(); ++i) {
      const auto& pages = from.layers[i].pages;
      fork->layers[i].pages.assign(pages.begin(), pages.begin() + kept);
      fork->layers[i].len = len;
    }
    Sequence& adopted = *fork;
    const int64_t id = impl_->adopt(std::move(fork));
    // Only now that nothing can fail are the pages held.
    for (KvLayer& layer : adopted.layers) {
      for (const int32_t page : layer.pages) {
        if (page == KvLayer::released_page) {
          ++layer.released;
        } else {
          layer.pool->hold(page);
        }
      }
    }
    return id;
  });
}

void KvCache::free(int64_t sequence) {
  for (KvLayer& layer : impl_->at(sequence).layers) shorten(layer, 0);
  impl_->sequences[static_cast<size_t>(sequence)].reset();
  impl_->freed.push_back(sequence);
}

int64_t KvCache::len(int64_t sequence) const { return impl_->at(sequence).len(); }

int64_t KvCache::len(int64_t sequence, int64_t layer) const {
  return impl_->at(sequence, layer).len;
}

void KvCache::reserve(std::span<const Growth> growths) {
  constexpr int64_t most = int64_t{1} << 40;  // nobody's memory holds more, and sums stay in range
  or_out_of_memory([&] {
    std::vector<int64_t>& ids = impl_->growing;
    ids.clear();
    for (const Growth& growth : growths) {
      impl_->at(growth.sequence);
      require(growth.tokens >= 0 && growth.tokens <= most,
              "KV cache: can't reserve {} tokens, expected 0 to {}", growth.tokens, most);
      ids.push_back(growth.sequence);
    }
    std::sort(ids.begin(), ids.end());
    const auto twice = std::adjacent_find(ids.begin(), ids.end());
    require(twice == ids.end(), "KV cache: sequence {} occurs twice",
            twice == ids.end() ? 0 : *twice);
    PageClaim claim(impl_->store);
    for (const Growth& growth : growths) {
      for (KvLayer& layer : impl_->at(growth.sequence).layers) claim.add(layer, growth.tokens);
    }
    claim.commit();
  });
}

void KvCache::append(Context& context, int64_t sequence, int64_t layer_index, const AnyView<3>& k,
                     const AnyView<3>& v) {
  KvLayer& layer = impl_->at(sequence, layer_index);
  check_shape("k", k, k.shape[0], layer.kv_heads, layer.head_dim);
  check_shape("v", v, k.shape[0], layer.kv_heads, layer.v_head_dim);
  or_out_of_memory([&] {
    std::byte* scratch = write_scratch(context.impl(), layer);
    PageClaim claim(impl_->store);
    claim.add(layer, k.shape[0]);
    claim.commit();
    write_tokens(context.impl(), layer, k, v, scratch);
  });
}

void KvCache::truncate(int64_t sequence, int64_t len) {
  Sequence& s = impl_->at(sequence);
  s.check_end(len, "truncate");
  for (KvLayer& layer : s.layers) shorten(layer, len);
}

void KvCache::release(int64_t sequence, int64_t layer_index, int64_t begin, int64_t end) {
  KvLayer& layer = impl_->at(sequence, layer_index);
  require(begin >= 0 && begin <= end && end <= layer.len,
          "KV cache: can't release tokens {} to {} of {}", begin, end, layer.len);
  for (int64_t block = ceil_div(begin, page_size); block < end / page_size; ++block) {
    if (!layer.holds(block)) continue;
    layer.pool->drop(
        std::exchange(layer.pages[static_cast<size_t>(block)], KvLayer::released_page));
    ++layer.released;
  }
}

PackedKv KvCache::view(int64_t sequence, int64_t layer_index) const {
  const KvLayer& layer = impl_->at(sequence, layer_index);
  return PackedKv(&layer, layer.len);
}

void KvCache::read(int64_t sequence, int64_t layer_index, int64_t begin, int64_t n, float* k,
                   float* v) const {
  const KvLayer& layer = impl_->at(sequence, layer_index);
  require(begin >= 0 && n >= 0 && begin <= layer.len - n,
          "KV cache: no {} tokens from {} on: the layer has {}", n, begin, layer.len);
  if (n == 0) return;
  for (int64_t block = begin / page_size; block <= (begin + n - 1) / page_size; ++block) {
    require(layer.holds(block), "KV cache: token {} was released",
            std::max(begin, block * page_size));
  }
  read_tokens(layer, begin, n, k, v);
}

int64_t KvCache::used_bytes(int64_t sequence) const {
  int64_t bytes = 0;
  for (const KvLayer& layer : impl_->at(sequence).layers) {
    bytes += (layer.len - layer.released * page_size) * token_bytes(layer);
  }
  return bytes;
}

KvUsage KvCache::usage() const {
  KvUsage usage;
  for (const auto& pool : impl_->store.pools()) {
    usage.pages += pool->held();
    usage.shared_pages += pool->shared();
    usage.bytes += pool->held() * pool->page_bytes();
    usage.free_pages += pool->free();
    usage.free_bytes += pool->free() * pool->page_bytes();
  }
  return usage;
}

}  // namespace gqa
