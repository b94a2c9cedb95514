#include "kv/tokens.h"

#include <algorithm>
#include <cstring>

#include "core/half.h"

namespace gqa {
namespace {

using detail::KvLayer;
constexpr int64_t page_size = KvCache::page_size;

/// Tokens [first, first + n) of what is appended, which lie in one page from `slot` on.
struct Piece {
  int64_t first;
  int64_t n;
  int64_t block;
  int64_t slot;
};

/// Rows of the appended tokens on their way into pages. What one thread works in is `memory`.
class Writer {
 public:
  Writer(const kernels::Table& kernels, const KvLayer& layer, std::byte* memory)
      : kernels_(kernels), layer_(layer), element_(dtype_bytes(layer.dtype)) {
    row_ = reinterpret_cast<float*>(memory);
    rows_ = memory + row_bytes(layer);
  }

  static int64_t memory_bytes(const KvLayer& layer) {
    const int64_t rows = page_size * layer.head_dim * dtype_bytes(layer.dtype);
    return row_bytes(layer) + round_up(rows, AlignedBuffer::alignment);
  }

  void write_keys(const AnyView<3>& k, const Piece& piece, int64_t head) const {
    const int64_t dim = layer_.head_dim;
    for (int64_t t = 0; t < piece.n; ++t) {
      encode_row(k, piece.first + t, head, rows_ + t * dim * element_);
    }
    std::byte* to = layer_.keys(piece.block, head) + piece.slot * element_;
    if (layer_.dtype == DType::f32) {
      transpose<uint32_t>(piece.n, dim, to);
    } else {
      transpose<uint16_t>(piece.n, dim, to);
    }
  }

  void write_values(const AnyView<3>& v, const Piece& piece, int64_t head) const {
    const int64_t row = layer_.v_head_dim * element_;
    std::byte* to = layer_.values(piece.block, head) + piece.slot * row;
    for (int64_t t = 0; t < piece.n; ++t) encode_row(v, piece.first + t, head, to + t * row);
  }

 private:
  static int64_t row_bytes(const KvLayer& layer) {
    const int64_t floats = std::max(layer.head_dim, layer.v_head_dim);
    return round_up(floats * static_cast<int64_t>(sizeof(float)), AlignedBuffer::alignment);
  }

  /// Converts x[token, head, :] to the layer's type.
  void encode_row(const AnyView<3>& x, int64_t token, int64_t head, std::byte* to) const {
    const int64_t dim = x.shape[2];
    const int64_t base = token * x.strides[0] + head * x.strides[1];
    if (x.strides[2] == 1) {
      const auto* from = static_cast<const char*>(x.data) + base * dtype_bytes(x.dtype);
      kernels_.decode(x.dtype, from, dim, row_);
    } else {
      for (int64_t d = 0; d < dim; ++d) {
        row_[d] = load_element(x.data, x.dtype, base + d * x.strides[2]);
      }
    }
    kernels_.encode(layer_.dtype, row_, dim, to);
  }

  /// rows_ [n][dim] to columns [dim][n] of a block, whose rows are page_size apart.
  template <typename Element>
  void transpose(int64_t n, int64_t dim, std::byte* to) const {
    const auto* from = reinterpret_cast<const Element*>(rows_);
    auto* column = reinterpret_cast<Element*>(to);
    for (int64_t d = 0; d < dim; ++d, column += page_size) {
      for (int64_t t = 0; t < n; ++t) column[t] = from[t * dim + d];
    }
  }

  const kernels::Table& kernels_;
  const KvLayer& layer_;
  int64_t element_;
  float* row_;       ///< one head's vector while it changes type
  std::byte* rows_;  ///< [page_size][head_dim] in the layer's type
};

/// Below this many elements, waking threads costs more than they give.
constexpr int64_t worth_threads = 50'000;

}  // namespace

std::byte* write_scratch(Context::Impl& context, const KvLayer& layer) {
  return context.scratch<std::byte>(Scratch::kv_tokens,
                                    Writer::memory_bytes(layer) * context.pool.n_threads());
}

void write_tokens(Context::Impl& context, KvLayer& layer, const AnyView<3>& k, const AnyView<3>& v,
                  std::byte* scratch) {
  const int64_t n = k.shape[0];
  const int64_t first_block = layer.len / page_size;
  const int64_t blocks = ceil_div(layer.len + n, page_size) - first_block;
  // Each page and KV head on its own: no two write to the same place.
  const auto write = [&](int64_t i, int thread) {
    const Writer writer(*context.kernels, layer, scratch + thread * Writer::memory_bytes(layer));
    const int64_t block = first_block + i / layer.kv_heads;
    const int64_t head = i % layer.kv_heads;
    const int64_t begin = std::max(layer.len, block * page_size);
    const int64_t end = std::min(layer.len + n, (block + 1) * page_size);
    const Piece piece{begin - layer.len, end - begin, block, begin % page_size};
    writer.write_keys(k, piece, head);
    writer.write_values(v, piece, head);
  };
  if (n * layer.kv_heads * (layer.head_dim + layer.v_head_dim) < worth_threads) {
    for (int64_t i = 0; i < blocks * layer.kv_heads; ++i) write(i, 0);
  } else {
    context.pool.parallel_for(blocks * layer.kv_heads, write);
  }
  layer.len += n;
}

void read_tokens(const KvLayer& layer, int64_t begin, int64_t n, float* k, float* v) {
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

}  // namespace gqa
