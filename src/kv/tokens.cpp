#include "kv/tokens.h"

#include <algorithm>
#include <bit>

#include "core/kv_words.h"
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

/// Writes elements of the type that `t` packs (a byte each for integers) to their places in words
/// of some order: `put(k, column, element)`.
class Packer {
 public:
  Packer(KvDType t, void* words, const WordOrder& order)
      : type_(t),
        words_(words),
        order_(order),
        shift_(std::countr_zero(static_cast<uint64_t>(word_elements(t)))) {}

  template <typename Element>
  void put(int64_t k, int64_t column, Element element) const {
    const int64_t word = order_.at(k >> shift_, column);
    const int64_t e = k - (k >> shift_ << shift_);
    if (type_ != KvDType::int4) {
      static_cast<Element*>(words_)[(word << shift_) + e] = element;
      return;
    }
    uint8_t& byte = static_cast<uint8_t*>(words_)[4 * word + e % 4];
    const auto nibble = static_cast<uint8_t>(element & 0x0f);
    byte = static_cast<uint8_t>(e < 4 ? (byte & 0xf0) | nibble : (byte & 0x0f) | nibble << 4);
  }

 private:
  KvDType type_;
  void* words_;
  WordOrder order_;
  int shift_;  ///< a word holds 2^shift_ elements
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
    const int64_t elements = page_size * std::max(layer.head_dim, layer.v_head_dim);
    return row_bytes(layer) + round_up(elements * element_bytes(layer), AlignedBuffer::alignment);
  }

  void write_keys(const AnyView<3>& k, const Piece& piece, int64_t head) const {
    encode_rows(k, piece, head, layer_.key_scales(piece.block, head));
    const Packer packer(layer_.dtype, layer_.keys(piece.block, head), layer_.key_order());
    const int64_t dim = layer_.head_dim;
    with_elements([&](const auto* rows) {
      for (int64_t d = 0; d < dim; ++d) {
        for (int64_t t = 0; t < piece.n; ++t) packer.put(d, piece.slot + t, rows[t * dim + d]);
      }
    });
  }

  void write_values(const AnyView<3>& v, const Piece& piece, int64_t head) const {
    encode_rows(v, piece, head, layer_.value_scales(piece.block, head));
    const int64_t dim = layer_.v_head_dim;
    const Packer packer(layer_.dtype, layer_.values(piece.block, head), layer_.value_order());
    with_elements([&](const auto* rows) {
      for (int64_t t = 0; t < piece.n; ++t) {
        for (int64_t d = 0; d < dim; ++d) packer.put(piece.slot + t, d, rows[t * dim + d]);
      }
    });
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

  /// rows_ = x[token, head, :] for the tokens of a piece, in the layer's type; with its scales, if
  /// it has any.
  void encode_rows(const AnyView<3>& x, const Piece& piece, int64_t head, float* scales) const {
    const int64_t dim = x.shape[2];
    for (int64_t t = 0; t < piece.n; ++t) {
      const int64_t base = (piece.first + t) * x.strides[0] + head * x.strides[1];
      kernels::load_row(kernels_, x.data, x.dtype, base, x.strides[2], dim, row_);
      std::byte* to = rows_ + t * dim * element_bytes(layer_);
      if (is_quantised(layer_.dtype)) {
        scales[piece.slot + t] =
            kernels_.quantise(row_, dim, largest_int(layer_.dtype), reinterpret_cast<int8_t*>(to));
      } else {
        kernels_.encode(element_dtype(layer_.dtype), row_, dim, to);
      }
    }
  }

  /// Calls f with rows_ as an array of what elements are moved as.
  template <typename F>
  void with_elements(const F& f) const {
    switch (element_bytes(layer_)) {
      case 4:
        return f(reinterpret_cast<const uint32_t*>(rows_));
      case 2:
        return f(reinterpret_cast<const uint16_t*>(rows_));
      default:
        return f(reinterpret_cast<const uint8_t*>(rows_));
    }
  }

  const kernels::Table& kernels_;
  const KvLayer& layer_;
  float* row_;       ///< one head's vector while it changes type
  std::byte* rows_;  ///< [page_size] vectors in the layer's type
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
      const bool scaled = is_quantised(layer.dtype);
      const float k_scale = scaled ? layer.key_scales(block, head)[slot] : 1.0f;
      const float v_scale = scaled ? layer.value_scales(block, head)[slot] : 1.0f;
      const std::byte* keys = layer.keys(block, head);
      for (int64_t d = 0; d < layer.head_dim; ++d) {
        *k++ = k_scale * load_packed(layer.dtype, keys, layer.key_order(), d, slot);
      }
      const std::byte* values = layer.values(block, head);
      for (int64_t d = 0; d < layer.v_head_dim; ++d) {
        *v++ = v_scale * load_packed(layer.dtype, values, layer.value_order(), slot, d);
      }
    }
  }
}

}  // namespace gqa
