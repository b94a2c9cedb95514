#include "kernels/vnni.h"

#if defined(__x86_64__)

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "core/checked.h"
#include "core/kv_words.h"
#include "kernels/ahead.h"
#include "kernels/split_avx512.h"
#include "kernels/weighed_blocks.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {
namespace {

/// What multiplies all else.
const Table* vectors = nullptr;

/// Words of integers of 4 bits or 8. The instruction multiplies unsigned bytes by signed ones, so
/// both are made unsigned: what is added to each integer comes off again with the sum of the row.
template <KvDType t>
struct Words;

template <>
struct Words<KvDType::int8> {
  static constexpr int32_t kBias = 128;
  static constexpr int kParts = 1;  ///< of 4 elements, in a word
  static __m512i unsigned_bytes(__m512i word) {
    return _mm512_xor_si512(word, _mm512_set1_epi8(static_cast<char>(0x80)));
  }
  template <int kPart>
  static __m512i part(__m512i bytes) {
    return bytes;
  }
};

template <>
struct Words<KvDType::int4> {
  static constexpr int32_t kBias = 8;
  static constexpr int kParts = 2;
  static __m512i unsigned_bytes(__m512i word) {
    return _mm512_xor_si512(word, _mm512_set1_epi8(static_cast<char>(0x88)));
  }
  template <int kPart>
  static __m512i part(__m512i bytes) {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    return _mm512_and_si512(kPart == 0 ? bytes : _mm512_srli_epi16(bytes, 4), nibble);
  }
};

/// Split rows and the words that they meet.
struct Part {
  const std::byte* rows;
  const int32_t* words;  ///< [.][columns]
  int64_t begin, end;    ///< of the words
  AheadLines ahead;
};

/// C [rows][.] (+)= sum over parts of rows * words [begin, end).
struct Product {
  std::span<Part> parts;
  int64_t row_bytes;
  int64_t n;  ///< elements of a row
  int64_t columns;
  float* c;
  int64_t c_row;
  bool add;
};

/// Part kPart of a word, V vectors of them, times the same elements of R rows.
template <KvDType t, int kPart, int R, int V>
[[gnu::always_inline]] inline void multiply(const Product& p, const std::byte* rows, int64_t word,
                                            const __m512i (&bytes)[V], __m512i (&sums)[2][R][V]) {
  if constexpr (kPart < Words<t>::kParts) {
    __m512i part[V];
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) part[j] = Words<t>::template part<kPart>(bytes[j]);
    const int64_t element = 4 * (word * Words<t>::kParts + kPart);
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      const std::byte* row = rows + r * p.row_bytes;
      int32_t high, low;
      std::memcpy(&high, high_bytes(row) + element, sizeof high);
      std::memcpy(&low, low_bytes(row, p.n) + element, sizeof low);
      const __m512i h = _mm512_set1_epi32(high);
      const __m512i l = _mm512_set1_epi32(low);
      HWY_UNROLL(4)
      for (int j = 0; j < V; ++j) {
        add_dots(sums[0][r][j], part[j], h);
        add_dots(sums[1][r][j], part[j], l);
      }
    }
    multiply<t, kPart + 1>(p, rows, word, bytes, sums);
  }
}

/// V vectors of columns of R rows; the mask is of the last one's columns.
template <KvDType t, int R, int V>
[[gnu::always_inline]] inline void tile(const Product& p, int64_t row, int64_t column,
                                        __mmask16 mask) {
  __m512i sums[2][R][V];
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) sums[0][r][j] = sums[1][r][j] = _mm512_setzero_si512();
  }
  const int64_t columns = p.columns;
  for (Part& part : p.parts) {
    const std::byte* rows = part.rows + row * p.row_bytes;
    const int32_t* at = part.words + part.begin * columns + column;
    AheadLines ahead = part.ahead;
    for (int64_t word = part.begin, end = part.end; word < end; ++word, at += columns) {
      ahead.step();
      __m512i bytes[V];
      HWY_UNROLL(4)
      for (int j = 0; j < V; ++j) {
        const __mmask16 some = j == V - 1 ? mask : static_cast<__mmask16>(0xffff);
        bytes[j] = Words<t>::unsigned_bytes(_mm512_maskz_loadu_epi32(some, at + 16 * j));
      }
      multiply<t, 0>(p, rows, word, bytes, sums);
    }
    part.ahead = ahead;
  }
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    int32_t high_sum = 0, low_sum = 0;
    float scale = 0;  // that of all parts
    for (const Part& part : p.parts) {
      const SplitHeader header = split_header(part.rows + (row + r) * p.row_bytes);
      high_sum += header.high_sum;
      low_sum += header.low_sum;
      scale = header.scale;
    }
    const __m512i high_bias = _mm512_set1_epi32(Words<t>::kBias * high_sum);
    const __m512i low_bias = _mm512_set1_epi32(Words<t>::kBias * low_sum);
    float* c = p.c + (row + r) * p.c_row + column;
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) {
      const __m512 both = combine(_mm512_sub_epi32(sums[0][r][j], high_bias),
                                  _mm512_sub_epi32(sums[1][r][j], low_bias), scale);
      const __m512 sum = p.add ? _mm512_add_ps(_mm512_loadu_ps(c + 16 * j), both) : both;
      _mm512_storeu_ps(c + 16 * j, sum);
    }
  }
}

constexpr int64_t tile_rows = 4;

template <KvDType t, int V>
void tile_of(int64_t n, const Product& p, int64_t row, int64_t column, __mmask16 mask) {
  switch (n) {
    case 1:
      return tile<t, 1, V>(p, row, column, mask);
    case 2:
      return tile<t, 2, V>(p, row, column, mask);
    case 3:
      return tile<t, 3, V>(p, row, column, mask);
    default:
      return tile<t, 4, V>(p, row, column, mask);
  }
}

constexpr int64_t tile_columns = 32;

/// Columns [begin, end) of `rows` rows.
template <KvDType t>
void multiply_rows(const Product& p, int64_t rows, int64_t begin, int64_t end) {
  constexpr __mmask16 all = 0xffff;
  for (int64_t row = 0; row < rows; row += tile_rows) {
    const int64_t n = std::min(tile_rows, rows - row);
    int64_t column = begin;
    for (; column + tile_columns <= end; column += tile_columns) {
      tile_of<t, 2>(n, p, row, column, all);
    }
    for (; column < end; column += 16) {
      const int64_t left = std::min<int64_t>(16, p.columns - column);
      tile_of<t, 1>(n, p, row, column, static_cast<__mmask16>(0xffff >> (16 - left)));
    }
  }
}

void multiply(KvDType t, const Product& p, int64_t rows, int64_t begin, int64_t end) {
  if (t == KvDType::int8) {
    multiply_rows<KvDType::int8>(p, rows, begin, end);
  } else {
    multiply_rows<KvDType::int4>(p, rows, begin, end);
  }
}

/// Steps of prefetching beside one row tile.
int64_t steps(int64_t words, int64_t columns) {
  return std::max<int64_t>(1, words) * ceil_div(columns, tile_columns);
}

int64_t query_bytes(KvDType t, int64_t head_dim) {
  return is_quantised(t) ? split_bytes(head_dim) : vectors->query_bytes(t, head_dim);
}

void prepare_query(KvDType t, const float* q, int64_t head_dim, float scale, void* prepared) {
  if (!is_quantised(t)) return vectors->prepare_query(t, q, head_dim, scale, prepared);
  split(q, head_dim, scale, static_cast<std::byte*>(prepared));
}

void score(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k, Range keys,
           float* scores, int64_t scores_row, const Ahead& next) {
  if (!is_quantised(k.type)) {
    return vectors->score(queries, rows, head_dim, k, keys, scores, scores_row, next);
  }
  const int64_t words = ceil_div(head_dim, word_elements(k.type));
  const int64_t begin = keys.begin / 16 * 16, end = round_up(int64_t{keys.end}, 16);
  Part part{static_cast<const std::byte*>(queries), static_cast<const int32_t*>(k.words), 0, words,
            AheadLines(next, steps(words, end - begin))};
  const Product p{
      .parts = std::span(&part, 1),
      .row_bytes = split_bytes(head_dim),
      .n = head_dim,
      .columns = key_block,
      .c = scores,
      .c_row = scores_row,
      .add = false,
  };
  multiply(k.type, p, rows, begin, end);
}

void accumulate(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim, float* acc,
                int64_t acc_row) {
  const KvDType t = blocks[0].v->type;
  if (!is_quantised(t)) return vectors->accumulate(blocks, rows, v_head_dim, acc, acc_row);
  constexpr int64_t row_bytes = split_bytes(key_block);
  alignas(64) std::byte split_rows[stretch_blocks][tile_rows * row_bytes];
  for (int64_t row = 0; row < rows; row += tile_rows) {
    const int64_t n = std::min(tile_rows, rows - row);
    std::array<Part, stretch_blocks> parts;
    std::array<const float*, stretch_blocks> weights;
    std::array<std::byte*, stretch_blocks> split_to;
    size_t count = 0;
    for (const size_t i : SeenBlocks(blocks, row, n)) {
      const WeighedBlock& block = blocks[i];
      const int64_t begin = block.keys.begin / word_elements(t);
      const int64_t end = ceil_div(int64_t{block.keys.end}, word_elements(t));
      weights[count] = block.weights + row * block.weights_row;
      split_to[count] = split_rows[i];
      const Ahead& next = row == 0 ? *block.next : nothing_ahead;
      parts[count++] = {split_rows[i], static_cast<const int32_t*>(block.v->words), begin, end,
                        AheadLines(next, steps(end - begin, v_head_dim))};
    }
    if (count == 0) continue;
    for (int64_t r = 0; r < n; ++r) {
      split_weights(weights.data(), static_cast<int64_t>(count), split_to.data());
      for (size_t i = 0; i < count; ++i) {
        weights[i] += blocks[0].weights_row;
        split_to[i] += row_bytes;
      }
    }
    const Product p{
        .parts = std::span(parts.data(), count),
        .row_bytes = row_bytes,
        .n = key_block,
        .columns = v_head_dim,
        .c = acc + row * acc_row,
        .c_row = acc_row,
        .add = true,
    };
    multiply(t, p, n, 0, v_head_dim);
  }
}

}  // namespace

const Table& vnni_table(const Table& base) {
  static const Table table = [&] {
    vectors = &base;
    Table changed = base;
    changed.isa = emulates ? "vnni_emulated" : "avx512_vnni";
    changed.takes_stored = is_quantised;
    changed.query_bytes = query_bytes;
    changed.prepare_query = prepare_query;
    changed.score = score;
    changed.accumulate = accumulate;
    return changed;
  }();
  return table;
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
