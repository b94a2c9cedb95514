#include "kernels/vnni.h"

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "core/kv_words.h"
#include "kernels/ahead.h"
#include "kernels/split_avx512.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")
namespace gqa::kernels {
namespace {

const Table* avx512 = nullptr;

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

/// sum + the dot products of each four bytes. As assembly since GCC 12 copies every accumulator of
/// the intrinsic back and forth, which takes a third of the speed.
[[gnu::always_inline]] inline void add_dots(__m512i& sum, __m512i unsigned_bytes, __m512i bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(bytes));
}

/// C [rows][.] (+)= rows * words [.][columns], of words [begin, end).
struct Product {
  const std::byte* rows;  ///< split rows
  int64_t row_bytes;
  int64_t n;  ///< elements of a row
  const int32_t* words;
  int64_t columns;
  int64_t begin, end;
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
                                        __mmask16 mask, AheadLines& ahead) {
  const std::byte* rows = p.rows + row * p.row_bytes;
  __m512i sums[2][R][V];
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) sums[0][r][j] = sums[1][r][j] = _mm512_setzero_si512();
  }
  const int32_t* at = p.words + p.begin * p.columns + column;
  const int64_t columns = p.columns;
  for (int64_t word = p.begin, end = p.end; word < end; ++word, at += columns) {
    ahead.step();
    __m512i bytes[V];
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) {
      const __mmask16 some = j == V - 1 ? mask : static_cast<__mmask16>(0xffff);
      bytes[j] = Words<t>::unsigned_bytes(_mm512_maskz_loadu_epi32(some, at + 16 * j));
    }
    multiply<t, 0>(p, rows, word, bytes, sums);
  }
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    const SplitHeader header = split_header(rows + r * p.row_bytes);
    const __m512i high_bias = _mm512_set1_epi32(Words<t>::kBias * header.high_sum);
    const __m512i low_bias = _mm512_set1_epi32(Words<t>::kBias * header.low_sum);
    float* c = p.c + (row + r) * p.c_row + column;
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) {
      const __m512 both = combine(_mm512_sub_epi32(sums[0][r][j], high_bias),
                                  _mm512_sub_epi32(sums[1][r][j], low_bias), header.scale);
      const __m512 sum = p.add ? _mm512_add_ps(_mm512_loadu_ps(c + 16 * j), both) : both;
      _mm512_storeu_ps(c + 16 * j, sum);
    }
  }
}

constexpr int64_t tile_rows = 4;

template <KvDType t, int V>
void tile_of(int64_t n, const Product& p, int64_t row, int64_t column, __mmask16 mask,
             AheadLines& ahead) {
  switch (n) {
    case 1:
      return tile<t, 1, V>(p, row, column, mask, ahead);
    case 2:
      return tile<t, 2, V>(p, row, column, mask, ahead);
    case 3:
      return tile<t, 3, V>(p, row, column, mask, ahead);
    default:
      return tile<t, 4, V>(p, row, column, mask, ahead);
  }
}

/// Columns [begin, end) of `rows` rows.
template <KvDType t>
void multiply_rows(const Product& p, int64_t rows, int64_t begin, int64_t end, Ahead next) {
  constexpr int64_t step = 32;
  constexpr __mmask16 all = 0xffff;
  AheadLines ahead(next, std::max<int64_t>(1, p.end - p.begin) * ceil_div(end - begin, step));
  for (int64_t row = 0; row < rows; row += tile_rows) {
    const int64_t n = std::min(tile_rows, rows - row);
    int64_t column = begin;
    for (; column + step <= end; column += step) tile_of<t, 2>(n, p, row, column, all, ahead);
    for (; column < end; column += 16) {
      const int64_t left = std::min<int64_t>(16, p.columns - column);
      tile_of<t, 1>(n, p, row, column, static_cast<__mmask16>(0xffff >> (16 - left)), ahead);
    }
  }
}

void multiply(KvDType t, const Product& p, int64_t rows, int64_t begin, int64_t end, Ahead next) {
  if (t == KvDType::int8) {
    multiply_rows<KvDType::int8>(p, rows, begin, end, next);
  } else {
    multiply_rows<KvDType::int4>(p, rows, begin, end, next);
  }
}

int64_t query_bytes(KvDType t, int64_t head_dim) {
  return is_quantised(t) ? split_bytes(head_dim) : avx512->query_bytes(t, head_dim);
}

void prepare_query(KvDType t, const float* q, int64_t head_dim, float scale, void* prepared) {
  if (!is_quantised(t)) return avx512->prepare_query(t, q, head_dim, scale, prepared);
  split(q, head_dim, scale, static_cast<std::byte*>(prepared));
}

void score(const void* queries, int64_t rows, int64_t head_dim, KvDType t, const void* k,
           Range keys, float* scores, Ahead next) {
  if (!is_quantised(t)) return avx512->score(queries, rows, head_dim, t, k, keys, scores, next);
  const Product p{
      .rows = static_cast<const std::byte*>(queries),
      .row_bytes = split_bytes(head_dim),
      .n = head_dim,
      .words = static_cast<const int32_t*>(k),
      .columns = key_block,
      .begin = 0,
      .end = ceil_div(head_dim, word_elements(t)),
      .c = scores,
      .c_row = key_block,
      .add = false,
  };
  multiply(t, p, rows, keys.begin / 16 * 16, round_up(int64_t{keys.end}, 16), next);
}

void accumulate(const float* weights, const uint64_t* visible, int64_t rows, KvDType t,
                const void* v, int64_t v_head_dim, Range keys, float* acc, int64_t acc_row,
                Ahead next) {
  if (!is_quantised(t)) {
    return avx512->accumulate(weights, visible, rows, t, v, v_head_dim, keys, acc, acc_row, next);
  }
  alignas(64) std::byte split_rows[tile_rows * split_bytes(key_block)];
  for (int64_t row = 0; row < rows; row += tile_rows) {
    const int64_t n = std::min(tile_rows, rows - row);
    for (int64_t r = 0; r < n; ++r) {
      split(weights + (row + r) * key_block, key_block, 1.0f,
            split_rows + r * split_bytes(key_block));
    }
    const Product p{
        .rows = split_rows,
        .row_bytes = split_bytes(key_block),
        .n = key_block,
        .words = static_cast<const int32_t*>(v),
        .columns = v_head_dim,
        .begin = keys.begin / word_elements(t),
        .end = ceil_div(int64_t{keys.end}, word_elements(t)),
        .c = acc + row * acc_row,
        .c_row = acc_row,
        .add = true,
    };
    multiply(t, p, n, 0, v_head_dim, row == 0 ? next : Ahead{});
  }
}

}  // namespace

const Table* vnni_table(const Table& base) {
  if (!__builtin_cpu_supports("avx512vnni")) return nullptr;
  static const Table table = [&] {
    avx512 = &base;
    Table changed = base;
    changed.isa = "avx512_vnni";
    changed.takes_stored = is_quantised;
    changed.query_bytes = query_bytes;
    changed.prepare_query = prepare_query;
    changed.score = score;
    changed.accumulate = accumulate;
    return changed;
  }();
  return &table;
}

}  // namespace gqa::kernels
HWY_POP_ATTRIBUTES

#endif
