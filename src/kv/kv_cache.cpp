#include "gqa/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "core/fail.h"
#include "core/half.h"
#include "kernels/context.h"
#include "kv/pages.h"

namespace gqa {

using detail::KvLayer;

struct KvCache::Impl {
  KvShape shape;
  std::vector<KvLayer> layers;
  std::vector<float> row;  ///< one head's vector while it changes type
  std::vector<std::byte> stored;
};

int64_t KvShape::bytes_per_token() const {
  int64_t heads = 0;
  for (const int64_t n : kv_heads) heads += n;
  return heads * (head_dim + v_head_dim) * dtype_bytes(dtype);
}

KvCache::KvCache(KvShape shape) : impl_(std::make_unique<Impl>()) {
  require(!shape.kv_heads.empty(), "KV cache: no layers");
  require(shape.head_dim >= 1 && shape.v_head_dim >= 1,
          "KV cache: head sizes {} and {}, expected 1 or more", shape.head_dim, shape.v_head_dim);
  for (const int64_t heads : shape.kv_heads) {
    require(heads >= 1, "KV cache: {} KV heads, expected 1 or more", heads);
    KvLayer layer;
    layer.kv_heads = heads;
    layer.head_dim = shape.head_dim;
    layer.v_head_dim = shape.v_head_dim;
    layer.dtype = shape.dtype;
    impl_->layers.push_back(std::move(layer));
  }
  const int64_t longest = std::max(shape.head_dim, shape.v_head_dim);
  impl_->row.resize(static_cast<size_t>(longest));
  impl_->stored.resize(static_cast<size_t>(longest * dtype_bytes(shape.dtype)));
  impl_->shape = std::move(shape);
}

KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

const KvShape& KvCache::shape() const { return impl_->shape; }

int64_t KvCache::len() const {
  int64_t shortest = impl_->layers.front().len;
  for (const KvLayer& layer : impl_->layers) shortest = std::min(shortest, layer.len);
  return shortest;
}

int64_t KvCache::len(int64_t layer) const {
  return impl_->layers.at(static_cast<size_t>(layer)).len;
}

namespace {

void check_shape(std::string_view name, const AnyView<3>& x, int64_t n, int64_t heads,
                 int64_t dim) {
  const std::array<int64_t, 3> expected{n, heads, dim};
  require(x.shape == expected, "KV cache: {} has shape [{}], expected [{}]", name,
          fmt::join(x.shape, ", "), fmt::join(expected, ", "));
}

void grow(KvLayer& layer, int64_t len) {
  const auto wanted = static_cast<size_t>(ceil_div(len, KvCache::page_size));
  while (layer.pages.size() < wanted) {
    AlignedBuffer page(layer.page_bytes());
    // Kernels may load the unused end of a block, if only to mask it: let it be numbers.
    std::memset(page.data(), 0, static_cast<size_t>(layer.page_bytes()));
    layer.pages.push_back(std::move(page));
  }
}

/// Reads [token, head, :] of x as f32.
void read_row(const kernels::Table& kernels, const AnyView<3>& x, int64_t token, int64_t head,
              float* out) {
  const int64_t base = token * x.strides[0] + head * x.strides[1];
  if (x.strides[2] == 1) {
    const auto* p = static_cast<const char*>(x.data) + base * dtype_bytes(x.dtype);
    kernels.decode(x.dtype, p, x.shape[2], out);
    return;
  }
  for (int64_t d = 0; d < x.shape[2]; ++d) {
    out[d] = load_element(x.data, x.dtype, base + d * x.strides[2]);
  }
}

/// Writes `dim` stored elements with a step of `stride` elements.
void scatter(const std::byte* from, int64_t dim, int64_t element, std::byte* to, int64_t stride) {
  for (int64_t d = 0; d < dim; ++d) {
    std::memcpy(to + d * stride * element, from + d * element, static_cast<size_t>(element));
  }
}

}  // namespace

void KvCache::append(Context& context, int64_t layer_index, const AnyView<3>& k,
                     const AnyView<3>& v) {
  require(layer_index >= 0 && layer_index < impl_->shape.n_layers(), "KV cache: no layer {}",
          layer_index);
  KvLayer& layer = impl_->layers[static_cast<size_t>(layer_index)];
  const int64_t n = k.shape[0];
  check_shape("k", k, n, layer.kv_heads, layer.head_dim);
  check_shape("v", v, n, layer.kv_heads, layer.v_head_dim);
  grow(layer, layer.len + n);
  const kernels::Table& kernels = *context.impl().kernels;
  const int64_t element = dtype_bytes(layer.dtype);
  float* row = impl_->row.data();
  std::byte* stored = impl_->stored.data();
  for (int64_t t = 0; t < n; ++t) {
    const int64_t block = (layer.len + t) / page_size;
    const int64_t slot = (layer.len + t) % page_size;
    for (int64_t head = 0; head < layer.kv_heads; ++head) {
      read_row(kernels, k, t, head, row);
      kernels.encode(layer.dtype, row, layer.head_dim, stored);
      scatter(stored, layer.head_dim, element, layer.keys(block, head) + slot * element, page_size);
      read_row(kernels, v, t, head, row);
      kernels.encode(layer.dtype, row, layer.v_head_dim,
                     layer.values(block, head) + slot * layer.v_head_dim * element);
    }
  }
  layer.len += n;
}

void KvCache::truncate(int64_t len) {
  require(len >= 0 && len <= this->len(), "KV cache: can't truncate {} tokens to {}", this->len(),
          len);
  for (KvLayer& layer : impl_->layers) {
    layer.len = len;
    layer.pages.resize(static_cast<size_t>(ceil_div(len, page_size)));
  }
}

PackedKv KvCache::view(int64_t layer) const {
  const KvLayer& l = impl_->layers.at(static_cast<size_t>(layer));
  return PackedKv(&l, l.len);
}

void KvCache::read(int64_t layer_index, int64_t begin, int64_t n, float* k, float* v) const {
  const KvLayer& layer = impl_->layers.at(static_cast<size_t>(layer_index));
  require(begin >= 0 && n >= 0 && begin <= layer.len - n, "KV cache: no tokens {} to {} of {}",
          begin, begin + n, layer.len);
  for (int64_t t = begin; t < begin + n; ++t) {
    const int64_t block = t / page_size;
    const int64_t slot = t % page_size;
    for (int64_t head = 0; head < layer.kv_heads; ++head) {
      for (int64_t d = 0; d < layer.head_dim; ++d) {
        *k++ = load_element(layer.keys(block, head), layer.dtype, d * page_size + slot);
      }
      for (int64_t d = 0; d < layer.v_head_dim; ++d) {
        *v++ = load_element(layer.values(block, head), layer.dtype, slot * layer.v_head_dim + d);
      }
    }
  }
}

int64_t KvCache::used_bytes() const {
  int64_t bytes = 0;
  for (const KvLayer& layer : impl_->layers) {
    bytes += layer.len * layer.page_bytes() / page_size;
  }
  return bytes;
}

int64_t KvCache::reserved_bytes() const {
  int64_t bytes = 0;
  for (const KvLayer& layer : impl_->layers) {
    bytes += static_cast<int64_t>(layer.pages.size()) * layer.page_bytes();
  }
  return bytes;
}

}  // namespace gqa
