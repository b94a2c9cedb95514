// The primitives that attention, the cache and dense products are made of, as one table of
// functions per instruction set. Bodies are written once, in the *-inl.h files, and compiled for
// each.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/kv_words.h"
#include "gqa/dtype.h"

namespace gqa::kernels {

/// Keys are worked on in blocks of this many, at absolute positions that are multiples of it.
inline constexpr int64_t key_block = 64;
/// Softmax takes one block at a time or this many, a stretch, at absolute positions likewise.
inline constexpr int64_t stretch_blocks = 4;
inline constexpr int64_t stretch_keys = stretch_blocks * key_block;
/// Rows of values and accumulators are padded to a multiple of this many floats: a whole number of
/// vectors of any instruction set.
inline constexpr int64_t row_padding = 16;
static_assert(panel_columns == row_padding, "vectors lie in one panel");

/// Rows of a register tile of attention.
inline constexpr int64_t few_rows = 6;

/// Dense products sum over slices of this many inputs: the operands of a register tile, at most 10
/// rows of them, fit a first-level cache of 48 KiB.
inline constexpr int64_t dense_depth = 1024;
/// At most so many rows of a dense product are worked on at a time: a slice of them fits a
/// second-level cache.
inline constexpr int64_t dense_rows = 96;
/// A multiple of every register tile's rows.
inline constexpr int64_t dense_tile = 6;
/// Floats of scratch of a dense product: a slice of its rows and of 4 rows of weights.
inline constexpr int64_t dense_scratch = (dense_rows + 4) * dense_depth;

/// Inputs of a row of int8 weights that share a scale; a divisor of dense_depth.
inline constexpr int64_t int8_block = 64;

/// Blocks of a row of n int8 weights, the last one perhaps shorter.
constexpr int64_t int8_blocks(int64_t n) { return (n + int8_block - 1) / int8_block; }

/// Keys [begin, end) of a block.
struct Range {
  int32_t begin = 0;
  int32_t end = 0;
};

/// Memory that is wanted next, to be prefetched on the way: up to two pieces of it, whole cache
/// lines each. They are brought into the first-level cache, or the second-level one alone. If `far`
/// is not 0, what lies so many bytes behind each line is probably wanted after that, and is brought
/// as near as the second-level cache.
struct Ahead {
  struct Piece {
    const char* data = nullptr;
    int64_t bytes = 0;
  };
  std::array<Piece, 2> pieces = {};
  bool second_level = false;
  int64_t far = 0;
};
inline constexpr Ahead nothing_ahead = {};

/// A block of keys or values as the kernels want it.
struct BlockWords {
  const void* words;
  KvDType type;
  WordOrder order;
};

/// Values of a key block, and the weights that rows give them.
struct WeighedBlock {
  const float* weights;                ///< [rows][key_block], as softmax leaves them
  int64_t weights_row;                 ///< from one row to the next
  const uint64_t* visible;             ///< [rows]: a bit for each key
  const BlockWords* v;                 ///< [key_block][v_head_dim]
  Range keys;                          ///< all that any row sees are among these
  const Ahead* next = &nothing_ahead;  ///< to be prefetched beside
};

/// Online softmax of one row: the largest score so far, and the sum of exp(score - max).
struct RowState {
  float max;
  float sum;
};

/// C [rows][.] (+)= A [rows][depth] * B [depth][.], all f32: rows of A, B and C lie `stride` floats
/// apart; transposed: A lies as [depth][rows].
struct MatrixProduct {
  const float* a;
  int64_t a_stride;
  bool transposed;
  const float* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  bool add;
  int64_t rows;
  Range depth;
  Range columns;  ///< and perhaps some beside them: whole vectors at multiples of row_padding
};

/// Sums of products of bf16 go over a multiple of this many pairs of elements.
inline constexpr int64_t pair_depth = 32;

/// C [rows][columns] (+)= scale * A [rows][depth] * B [depth][columns]: A and B of bf16, sums and C
/// of f32. A's rows lie a_stride elements apart, C's c_stride; B lies as words [depth /
/// 2][columns], each of two elements of a column. depth is a multiple of pair_depth, columns of
/// row_padding.
struct PairProduct {
  const uint16_t* a;
  int64_t a_stride;
  const uint32_t* b;
  float* c;
  int64_t c_stride;
  float scale;
  bool add;
  int64_t rows, depth, columns;
};

struct Table {
  std::string_view isa;  ///< as in Context::isa()
  /// What is wanted next is better brought into the second-level cache: where a core has few places
  /// for lines on their way into the first, and memory keeps them for long.
  bool second_level = false;
  /// Products take words of elements (not integers) in panels, too, and sooner than in rows; other
  /// tables take rows alone. Caches lie as the best table of a machine wants it.
  bool panels = false;

  // --- codecs: contiguous elements; src and dst may be unaligned for their type ---

  /// dst [n] f32 = src [n] of type t; exact.
  void (*decode)(DType t, const void* src, int64_t n, float* dst);
  /// dst [n] of type t = src [n] f32, rounded to nearest even.
  void (*encode)(DType t, const float* src, int64_t n, void* dst);
  /// No NaN and no infinity among x [n].
  bool (*all_finite)(const float* x, int64_t n);

  // --- caches: words as in core/kv_words.h ---

  /// q [n] = x [n] / scale, rounded to nearest even, with the scale that makes the largest
  /// magnitude `largest` (127 or 7); returns the scale: 0 where it would not be normal, NaN where
  /// an x is not finite; q is then 0.
  float (*quantise)(const float* x, int64_t n, int32_t largest, int8_t* q);
  /// dst, in order `to`, = rows `depth` of words [.][columns] as f32, exact, without scales; zeros
  /// behind the last column, up to a multiple of row_padding.
  void (*unpack)(KvDType t, const void* words, const WordOrder& order, Range depth, int64_t columns,
                 const WordOrder& to, float* dst);

  // --- attention over one key block, `rows` query rows at a time ---

  // Keys and values are words of type t. Usually they are decoded to f32 in registers, once for
  // every few_rows rows: for many rows it pays to unpack them first. Where the machine multiplies
  // such words as they are, queries and weights are brought to a form that it takes, and so for
  // any number of rows: a row's bits must not depend on how many there are.

  /// Rows at the edges of a mask that go together, though they see different keys.
  int64_t edge_rows;
  /// Whether queries and weights that meet this type are rounded for it, so that its words must
  /// not be unpacked to f32 first, but arranged.
  bool (*takes_stored)(KvDType t);
  /// Words [depth][columns] of a type that it takes so, which lie in `order`, in the order that
  /// score and accumulate want of so many rows, all that see some of the block: where they lie or,
  /// if that is not it, in scratch, aligned to a cache line: of keys [64 * max(16, depth)] floats,
  /// of values [64 * columns], rounded up to row_padding.
  BlockWords (*arrange)(KvDType t, const void* words, const WordOrder& order, int64_t depth,
                        int64_t columns, int64_t rows, void* scratch);
  /// Bytes of a prepared query, a whole number of cache lines if t is taken as stored.
  int64_t (*query_bytes)(KvDType t, int64_t head_dim);
  /// prepared [query_bytes] = scale * q [head_dim], for keys of a cache of type t.
  void (*prepare_query)(KvDType t, const float* q, int64_t head_dim, float scale, void* prepared);
  /// scores [rows][key_block], rows scores_row apart, = queries [rows] (prepared for the type of
  /// the words k [head_dim][key_block], or for a type that is not stored) * k, without scales, for
  /// keys [begin, end) and perhaps some beside them. In f32 each score is one chain of
  /// multiply-adds over head_dim, whatever else is computed.
  void (*score)(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k,
                Range keys, float* scores, int64_t scores_row, const Ahead& next);
  /// Blocks of a stretch, 1 or stretch_blocks: more spread what a row costs however few keys it
  /// has, but all keys of a stretch are read before its values, and not what lies one behind the
  /// other.
  int64_t (*stretch)(KvDType t);
  /// Whether scores of t, if nothing is done to them before softmax, are better scaled there.
  bool (*scales_late)(KvDType t);
  /// x [rows][key_block], rows x_row apart, times scales [key_block]; 0 where the key's bit in the
  /// row's visible [rows] is not set.
  void (*scale_keys)(float* x, int64_t x_row, const uint64_t* visible, int64_t rows,
                     const float* scales);
  /// x [n] = cap * tanh(x / cap), n a multiple of key_block. Relative error of tanh at most 8 u,
  /// u = 2^-24; it never exceeds 1.
  void (*softcap)(float* x, int64_t n, float cap);
  /// scores [key_block]: slope * |ahead - s| is taken from score s.
  void (*subtract_distance)(float* scores, float ahead, float slope);
  /// x [n] += y [n], n a multiple of key_block.
  void (*add)(float* x, const float* y, int64_t n);
  /// Bit s is set where x[s] is not -inf, x [key_block].
  uint64_t (*above_minus_infinity)(const float* x);
  /// Turns scores [rows][blocks][key_block], rows scores_row apart, into weights for values of type
  /// t: exp(scale * score - max), 0 for keys whose bit in visible [blocks][rows] is not
  /// set. Brings states and the rows of acc [rows][v_stride] up to the new maxima (Milakov and
  /// Gimelshein 2018). The scale is above 0, and 1 where scales_late() says no. A block that a row
  /// sees nothing of changes none of the row's bits. Weights of a type that is not quantised but
  /// taken as stored are of that type.
  void (*softmax)(KvDType t, float* scores, int64_t scores_row, const uint64_t* visible,
                  int64_t blocks, int64_t rows, float scale, RowState* states, float* acc,
                  int64_t v_stride, const Ahead& next);
  /// acc [rows][acc_row] += weights * v of each of these blocks, at least one and at most
  /// stretch_blocks, all of one type t, without scales; v_head_dim is a multiple of row_padding
  /// unless t is taken as stored. In f32 each element is one chain of multiply-adds in ascending
  /// order, whatever `rows` is, over the blocks' `keys` alone. If t is taken as stored, values that
  /// are not finite count for rows that see them; otherwise for all.
  void (*accumulate)(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim,
                     float* acc, int64_t acc_row);
  /// Gives back what score and accumulate have set up on this thread for their next calls.
  void (*end_run)();
  /// Merges a later partial result of one row into an earlier one.
  void (*merge)(RowState& state, float* acc, const RowState& later, const float* later_acc,
                int64_t v_stride);

  // --- the backward of attention ---

  /// Each element is one chain of multiply-adds from 0 in ascending order of depth, to which what
  /// was in C is added at the end: many products make sums of sums, whose error grows less.
  void (*multiply)(const MatrixProduct& p);
  /// scores [rows][key_block] become weights exp(score - lse), and dp [rows][key_block], the
  /// gradients of these, the scores' gradients weight * (dp - delta); both are 0 where the key's
  /// bit in the row's visible [rows] is not set. Scores must not be above lse but by rounding.
  void (*weigh_gradients)(float* scores, float* dp, const uint64_t* visible, int64_t rows,
                          const float* lse, const float* delta);
  /// ds [rows][key_block], gradients of capped scores, become those of the scores before the cap.
  void (*softcap_slope)(float* ds, const float* capped, const uint64_t* visible, int64_t rows,
                        float cap);
  /// Sum of x * y, n a multiple of row_padding.
  float (*dot)(const float* x, const float* y, int64_t n);
  /// Null where the machine does not multiply bf16 faster than f32. Subnormal operands count as 0,
  /// and sums that become subnormal may become 0.
  void (*multiply_pairs)(const PairProduct& p);
  /// words [rows / 2, rounded up][columns] of rows 2 i and 2 i + 1 of x [rows][columns], rounded to
  /// bf16; a row that is missing is 0. x's rows lie x_stride apart; columns is a multiple of
  /// row_padding.
  void (*pair_rows)(const float* x, int64_t x_stride, int64_t rows, int64_t columns,
                    uint32_t* words);
  /// to [columns][rows] = x [rows][columns], both dense; rows and columns are multiples of 4.
  void (*transpose)(const uint32_t* x, int64_t rows, int64_t columns, uint32_t* to);

  // --- dense products ---

  /// y[r * y_stride + o] = sum over i of x[r * x_stride + i] * w[o][i] for o in [begin, end) and
  /// rows <= dense_rows rows, with w [out][in] of type t, dense; scratch [dense_scratch], aligned
  /// to a cache line. Each sum has the same order whatever rows and outputs are computed beside it.
  void (*dense)(DType t, const void* w, int64_t in, int64_t begin, int64_t end, const float* x,
                int64_t x_stride, int64_t rows, float* y, int64_t y_stride, float* scratch);
  /// The same with weights scale * integer, rounded once to f32: w [out][in], scales
  /// [out][int8_blocks(in)]. Has the bits that dense() gives for these weights in f32.
  void (*dense_int8)(const int8_t* w, const float* scales, int64_t in, int64_t begin, int64_t end,
                     const float* x, int64_t x_stride, int64_t rows, float* y, int64_t y_stride,
                     float* scratch);
};

/// The tables that were compiled in and that this machine can run, best first; never empty.
std::span<const Table* const> tables();
/// More tables, which a Context takes by name alone: null, or what tests set before any call. They
/// do in software what this machine may lack.
extern std::span<const Table* const> (*more_tables)();

}  // namespace gqa::kernels
