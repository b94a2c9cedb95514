#include "kv/tokens.h"

#include <algorithm>
#include <cstring>

#include "core/half.h"
#include "core/int_row.h"
#include "kernels/load_row.h"

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
      : kernels_(kernels), layer_(layer) {
    row_ = reinterpret_cast<float*>(memory);
    rows_ = memory + row_bytes(layer);
  }

  static int64_t memory_bytes(const KvLayer& layer) {
    const int64_t elements = std::max(page_size * layer.head_dim, layer.v_head_dim);
    return row_bytes(layer) + round_up(elements * element_bytes(layer), AlignedBuffer::alignment);
  }

  void write_keys(const AnyView<3>& k, const Piece& piece, int64_t head) const {
    const int64_t dim = layer_.head_dim;
    std::byte* to = layer_.keys(piece.block, head);
    if (is_quantised(layer_.dtype)) {
      float* scales = layer_.key_scales(piece.block, head) + piece.slot;
      for (int64_t t = 0; t < piece.n; ++t) {
        scales[t] = quantise_row(k, piece.first + t, head, rows_ + t * dim);
      }
      transpose_integers(piece, dim, to);
      return;
    }
    const int64_t element = element_bytes(layer_);
    for (int64_t t = 0; t < piece.n; ++t) {
      encode_row(k, piece.first + t, head, rows_ + t * dim * element);
    }
    if (layer_.dtype == KvDType::f32) {
      transpose<uint32_t>(piece.n, dim, to + piece.slot * element);
    } else {
      transpose<uint16_t>(piece.n, dim, to + piece.slot * element);
    }
  }

  void write_values(const AnyView<3>& v, const Piece& piece, int64_t head) const {
    const int64_t dim = layer_.v_head_dim;
    const int64_t row = layer_.row_bytes(dim);
    std::byte* to = layer_.values(piece.block, head) + piece.slot * row;
    if (is_quantised(layer_.dtype)) {
      float* scales = layer_.value_scales(piece.block, head) + piece.slot;
      for (int64_t t = 0; t < piece.n; ++t) {
        scales[t] = quantise_row(v, piece.first + t, head, rows_);
        for (int64_t d = 0; d < dim; ++d) {
          store_int(layer_.dtype, to + t * row, dim, d, static_cast<int8_t>(rows_[d]));
        }
      }
      return;
    }
    for (int64_t t = 0; t < piece.n; ++t) encode_row(v, piece.first + t, head, to + t * row);
  }

 private:
  /// Of a vector on its way into a page: integers take a byte each there.
  static int64_t element_bytes(const KvLayer& layer) {
    return is_quantised(layer.dtype) ? 1 : dtype_bytes(element_dtype(layer.dtype));
  }

  static int64_t row_bytes(const KvLayer& layer) {
    const int64_t floats = std::max(layer.head_dim, layer.v_head_dim);
    return round_up(floats * static_cast<int64_t>(sizeof(float)), AlignedBuffer::alignment);
  }

  /// Converts x[token, head, :] to f32, in row_.
  void decode_row(const AnyView<3>& x, int64_t token, int64_t head) const {
    const int64_t base = token * x.strides[0] + head * x.strides[1];
    kernels::load_row(kernels_, x.data, x.dtype, base, x.strides[2], x.shape[2], row_);
  }

  /// Converts x[token, head, :] to the layer's type.
  void encode_row(const AnyView<3>& x, int64_t token, int64_t head, std::byte* to) const {
    decode_row(x, token, head);
    kernels_.encode(element_dtype(layer_.dtype), row_, x.shape[2], to);
  }

  /// Converts x[token, head, :] to integers, a byte each; returns their scale.
  float quantise_row(const AnyView<3>& x, int64_t token, int64_t head, std::byte* to) const {
    decode_row(x, token, head);
    return kernels_.quantise(row_, x.shape[2], largest_int(layer_.dtype),
                             reinterpret_cast<int8_t*>(to));
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

  /// The same for integers, into the piece's slots of a block.
  void transpose_integers(const Piece& piece, int64_t dim, std::byte* block) const {
    for (int64_t d = 0; d < dim; ++d, block += layer_.row_bytes(page_size)) {
      for (int64_t t = 0; t < piece.n; ++t) {
        store_int(layer_.dtype, block, page_size, piece.slot + t,
                  static_cast<int8_t>(rows_[t * dim + d]));
      }
    }
  }

  const kernels::Table& kernels_;
  const KvLayer& layer_;
  float* row_;       ///< one head's vector while it changes type
  std::byte* rows_;  ///< vectors in the layer's type: keys [page_size][head_dim], or one value
};

/// Element i of a row of n; `scale` counts where the layer is quantised.
float load(const KvLayer& layer, const std::byte* row, int64_t n, int64_t i, float scale) {
  if (!is_quantised(layer.dtype)) return load_element(row, element_dtype(layer.dtype), i);
  return scale * static_cast<float>(load_int(layer.dtype, row, n, i));
}

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
      const bool scaled = is_quantised(layer.dtype);
      const float k_scale = scaled ? layer.key_scales(block, head)[slot] : 1.0f;
      const float v_scale = scaled ? layer.value_scales(block, head)[slot] : 1.0f;
      const std::byte* row = layer.keys(block, head);
      for (int64_t d = 0; d < layer.head_dim; ++d, row += layer.row_bytes(page_size)) {
        *k++ = load(layer, row, page_size, slot, k_scale);
      }
      row = layer.values(block, head) + slot * layer.row_bytes(layer.v_head_dim);
      for (int64_t d = 0; d < layer.v_head_dim; ++d) {
        *v++ = load(layer, row, layer.v_head_dim, d, v_scale);
      }
    }
  }
}

}  // namespace gqa
