// Per-target: register tiles of products of 16-bit integers. Included once per instruction set,
// after int16_row-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// sum and the sums of each two products. GCC must not add up products before it adds them to sums:
/// it runs out of registers then, which takes a third of the speed. And what it must not take apart
/// is a variable of its own: an array with such an element would stay in memory.
HWY_INLINE VI AddPairs(VS a, VS b, VI sum) {
  const I32 d;
  VI second = hn::Zero(d);  // on x86 all goes to the first one
  VI added = hn::ReorderWidenMulAccumulate(d, a, b, sum, second);
  asm("" : "+v"(added.raw));
  return added;
}

/// C [rows][.] (+)= rows * words [begin, end) [columns].
struct IntegerProduct {
  const std::byte* rows;
  int64_t row_bytes;
  const int32_t* words;
  int64_t begin, end;
  int64_t columns;
  float* c;
  int64_t c_row;
  bool add;
};

/// Pair kPair of a word and those behind it, V vectors of them, times the same elements of R rows.
template <KvDType t, int kPair, int R, int V>
HWY_INLINE void MultiplyPairs(const std::byte* at, int64_t row_bytes, const VS (&words)[V],
                              VI (&sums)[R][V]) {
  if constexpr (kPair < Pairs<t>::kPairs) {
    const I32 d;
    const I16 d16;
    VS pairs[V];
    HWY_UNROLL(8)
    for (int j = 0; j < V; ++j) pairs[j] = Pairs<t>::template Get<kPair>(words[j]);
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      int32_t both;
      std::memcpy(&both, at + r * row_bytes + 4 * kPair, sizeof both);
      const VS x = hn::BitCast(d16, hn::Set(d, both));
      HWY_UNROLL(8)
      for (int j = 0; j < V; ++j) {
        sums[r][j] = AddPairs(x, pairs[j], sums[r][j]);
      }
    }
    MultiplyPairs<t, kPair + 1>(at, row_bytes, words, sums);
  }
}

/// Words of a step of a product: 8 elements.
template <KvDType t>
inline constexpr int64_t kStepWords = 8 / word_elements(t);

/// V vectors of words, or the first `count` words of a single one, times a word's elements of R
/// rows.
template <KvDType t, int R, int V, bool kSome>
HWY_INLINE void MultiplyWord(const std::byte* x, int64_t row_bytes, const int32_t* at, size_t count,
                             VI (&sums)[R][V]) {
  const I32 d;
  const I16 d16;
  VS words[V];
  HWY_UNROLL(8)
  for (int j = 0; j < V; ++j) {
    if constexpr (kSome) {
      words[j] = hn::BitCast(d16, hn::MaskedLoad(hn::FirstN(d, count), d, at));
    } else {
      words[j] = hn::BitCast(d16, hn::LoadU(d, at + j * static_cast<int64_t>(hn::Lanes(d))));
    }
  }
  MultiplyPairs<t, 0>(x, row_bytes, words, sums);
}

/// V vectors of columns of R rows; kSome: of a single vector the first `count` columns, of which
/// alone words are read.
template <KvDType t, int R, int V, bool kSome>
HWY_INLINE void IntegerTile(const IntegerProduct& p, int64_t row, int64_t column, size_t count,
                            AheadSteps& all_ahead) {
  constexpr int64_t kWordBytes = 4 * Pairs<t>::kPairs;  // of a row's integers
  // So many elements cannot overflow: 512 * 128 * 32767 < 2^31.
  constexpr int64_t kMost = 512 / word_elements(t);
  // A step asks for as much as it reads.
  constexpr int64_t kBytes = round_up(
      kStepWords<t> * V * static_cast<int64_t>(hn::MaxLanes(I32()) * sizeof(int32_t)), ahead_line);
  const I32 d;
  const F32 df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const std::byte* rows = p.rows + row * p.row_bytes;
  float* c = p.c + row * p.c_row + column;
  AheadSteps ahead = all_ahead;
  ahead.begin_pass();
  bool add = p.add;
  for (int64_t begin = p.begin; begin < p.end; begin += kMost, add = true) {
    VI sums[R][V];
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      HWY_UNROLL(8)
      for (int j = 0; j < V; ++j) sums[r][j] = hn::Zero(d);
    }
    const int64_t end = std::min(begin + kMost, p.end);
    const std::byte* x = Integers(rows) + begin * kWordBytes;
    const int32_t* at = p.words + begin * p.columns + column;
    int64_t word = begin;
    while (const int64_t n = ahead.steps(kBytes, (end - word) / kStepWords<t>)) {
      const char* next = ahead.next();
      for (int64_t i = 0; i < n; ++i, next += kBytes) {
        AheadSteps::ask(next, kBytes, false);
        HWY_UNROLL(2)
        for (int64_t w = 0; w < kStepWords<t>; ++w) {
          MultiplyWord<t, R, V, kSome>(x, p.row_bytes, at, count, sums);
          x += kWordBytes;
          at += p.columns;
        }
      }
      ahead.skip(n * kBytes);
      word += n * kStepWords<t>;
    }
    for (; word < end; ++word) {
      MultiplyWord<t, R, V, kSome>(x, p.row_bytes, at, count, sums);
      x += kWordBytes;
      at += p.columns;
    }
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      const VF step = hn::Set(df, StepOf(rows + r * p.row_bytes));
      HWY_UNROLL(8)
      for (int j = 0; j < V; ++j) {
        float* to = c + r * p.c_row + j * lanes;
        const VF before = add ? hn::LoadU(df, to) : hn::Zero(df);
        hn::StoreU(hn::MulAdd(step, hn::ConvertTo(df, sums[r][j]), before), df, to);
      }
    }
  }
  all_ahead = ahead;
}

inline constexpr int64_t kIntegerRows = 4;

/// Vectors of columns of a tile of R rows: of one row all keys of a block, so that words are read
/// one behind the other.
constexpr int IntegerVectors(int64_t r) {
  if (r == 1) return 8;
  return r == 2 || kManyRegisters ? 4 : 2;
}

template <KvDType t, int R, int V>
HWY_INLINE void IntegerColumns(const IntegerProduct& p, int64_t row, int64_t begin, int64_t end,
                               AheadSteps& ahead) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(I32()));
  int64_t column = begin;
  const int64_t whole = std::min(end, p.columns);
  for (; column + V * lanes <= whole; column += V * lanes) {
    IntegerTile<t, R, V, false>(p, row, column, 0, ahead);
  }
  if (column >= whole) return;
  if constexpr (V > 1) {
    IntegerColumns<t, R, V / 2>(p, row, column, end, ahead);
  } else {
    IntegerTile<t, R, 1, true>(p, row, column, static_cast<size_t>(whole - column), ahead);
  }
}

/// Columns [begin, end) of `rows` rows.
template <KvDType t>
HWY_NOINLINE void MultiplyRows(const IntegerProduct& p, int64_t rows, int64_t begin, int64_t end,
                               const Ahead& next) {
  const int64_t vectors = ceil_div(end - begin, static_cast<int64_t>(hn::Lanes(I32())));
  const auto passes = [&](int64_t r) {
    return r == 1   ? ceil_div(vectors, IntegerVectors(1))
           : r == 2 ? ceil_div(vectors, IntegerVectors(2))
                    : ceil_div(vectors, IntegerVectors(kIntegerRows));
  };
  AheadSteps ahead(next, passes_over(rows, kIntegerRows, passes));
  for (int64_t row = 0; row < rows; row += kIntegerRows) {
    switch (rows - row) {
      case 1:
        IntegerColumns<t, 1, IntegerVectors(1)>(p, row, begin, end, ahead);
        break;
      case 2:
        IntegerColumns<t, 2, IntegerVectors(2)>(p, row, begin, end, ahead);
        break;
      case 3:
        IntegerColumns<t, 3, IntegerVectors(3)>(p, row, begin, end, ahead);
        break;
      default:
        IntegerColumns<t, 4, IntegerVectors(4)>(p, row, begin, end, ahead);
    }
  }
  ahead.finish();
}

void MultiplyIntegers(KvDType t, const IntegerProduct& p, int64_t rows, int64_t begin, int64_t end,
                      const Ahead& next) {
  if (t == KvDType::int8) {
    MultiplyRows<KvDType::int8>(p, rows, begin, end, next);
  } else {
    MultiplyRows<KvDType::int4>(p, rows, begin, end, next);
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
