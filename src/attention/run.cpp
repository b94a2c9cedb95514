#include "attention/run.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/blocks.h"
#include "core/half.h"

namespace gqa {
namespace {

using kernels::key_block;
using kernels::Range;
using kernels::RowState;

/// Rows with their states and accumulators [rows][stride].
struct Rows {
  RowState* states;
  float* acc;

  void reset(int64_t rows, int64_t stride) const {
    std::fill(states, states + rows, RowState{-std::numeric_limits<float>::infinity(), 0.0f});
    std::fill(acc, acc + rows * stride, 0.0f);
  }
};

/// A partial result in memory, as partial_size() lays it out.
Rows rows_at(float* memory, int64_t rows) {
  return {reinterpret_cast<RowState*>(memory), memory + round_up(2 * rows, kernels::row_padding)};
}

/// What one thread works in. All sizes are those of the largest unit.
struct Workspace {
  float* q;        ///< [rows][head_dim], scaled
  float* k;        ///< [keys_scratch]
  float* v;        ///< [key_block][stride]
  float* scores;   ///< [rows][key_block]
  Range* visible;  ///< [rows]
  Rows part;
  Rows total;

  static int64_t floats(const PlanSize& s) { return lay_out(nullptr, s, nullptr); }
  Workspace(float* memory, const PlanSize& s) { lay_out(memory, s, this); }

 private:
  static int64_t lay_out(float* memory, const PlanSize& s, Workspace* w) {
    int64_t used = 0;
    const auto take = [&](int64_t n) {
      float* p = memory ? memory + used : nullptr;
      used += round_up(n, kernels::row_padding);
      return p;
    };
    float* q = take(s.max_rows * s.max_head_dim);
    float* k = take(keys_scratch(s.max_head_dim));
    float* v = take(key_block * row_stride(s.max_v_head_dim));
    float* scores = take(s.max_rows * key_block);
    float* visible = take(s.max_rows * 2);
    float* part = take(partial_size(s.max_rows, s.max_v_head_dim));
    float* total = take(partial_size(s.max_rows, s.max_v_head_dim));
    if (w) {
      w->q = q;
      w->k = k;
      w->v = v;
      w->scores = scores;
      w->visible = reinterpret_cast<Range*>(visible);
      w->part = rows_at(part, s.max_rows);
      w->total = rows_at(total, s.max_rows);
    }
    return used;
  }
};

/// One group's query rows of one item.
class Tile {
 public:
  Tile(const kernels::Table& kernels, const Job& job, int32_t item, int32_t kv_head,
       int64_t t_begin, int64_t t_end)
      : kernels_(kernels),
        job_(job),
        item_(job.batch[static_cast<size_t>(item)]),
        shape_(job.shapes[static_cast<size_t>(item)]),
        kv_head_(kv_head),
        t_begin_(t_begin),
        t_end_(t_end) {}

  int64_t rows() const { return (t_end_ - t_begin_) * shape_.group(); }
  int64_t stride() const { return row_stride(shape_.v_head_dim); }

  void load_queries(float* q) const {
    const AnyView<3>& x = item_.q;
    const auto dim = static_cast<float>(shape_.head_dim);
    const float scale = job_.scale.value_or(1.0f / std::sqrt(dim));
    for (int64_t r = 0; r < rows(); ++r, q += shape_.head_dim) {
      const int64_t base = token(r) * x.strides[0] + head(r) * x.strides[1];
      for (int64_t d = 0; d < shape_.head_dim; ++d) {
        q[d] = scale * load_element(x.data, x.dtype, base + d * x.strides[2]);
      }
    }
  }

  /// Works through the keys of one chunk from a fresh state.
  void attend_chunk(int64_t chunk, const Workspace& w, const Rows& out) const {
    out.reset(rows(), stride());
    const int64_t begin = chunk * chunk_keys / key_block;
    const int64_t end =
        std::min(begin + chunk_keys / key_block, ceil_div(shape_.kv_len, key_block));
    for (int64_t block = begin; block < end; ++block) attend_block(block, w, out);
  }

  void merge(const Rows& total, const Rows& later) const {
    for (int64_t r = 0; r < rows(); ++r) {
      kernels_.merge(total.states[r], total.acc + r * stride(), later.states[r],
                     later.acc + r * stride(), stride());
    }
  }

  /// Divides by the sums and writes outputs and LSE.
  void finish(const Rows& total) const {
    for (int64_t r = 0; r < rows(); ++r) {
      const RowState& state = total.states[r];
      float* acc = total.acc + r * stride();
      const float factor = state.sum == 0.0f ? 0.0f : 1.0f / state.sum;
      for (int64_t d = 0; d < shape_.v_head_dim; ++d) acc[d] *= factor;
      write(item_.out, r, acc);
      if (item_.lse.data) {
        const auto& lse = item_.lse;
        store_element(lse.data, DType::f32, token(r) * lse.strides[0] + head(r) * lse.strides[1],
                      state.max + std::log(state.sum));
      }
    }
  }

 private:
  int64_t token(int64_t row) const { return t_begin_ + row / shape_.group(); }
  int64_t head(int64_t row) const { return kv_head_ * shape_.group() + row % shape_.group(); }

  /// Fills in which keys of the block each row sees; returns those that any row sees.
  Range look(int64_t block, Range* visible) const {
    const int64_t first = block * key_block;
    const auto inside = [&](int64_t key) {
      return static_cast<int32_t>(std::clamp<int64_t>(key - first, 0, key_block));
    };
    Range any{static_cast<int32_t>(key_block), 0};
    for (int64_t r = 0; r < rows(); ++r) {
      if (r % shape_.group() != 0) {
        visible[r] = visible[r - 1];
        continue;
      }
      const KeyRange keys =
          visible_keys(job_.mask, shape_.q_start + token(r), shape_.first_key, shape_.kv_len);
      visible[r] = {inside(keys.begin), inside(keys.end)};
      if (visible[r].begin >= visible[r].end) continue;
      any = {std::min(any.begin, visible[r].begin), std::max(any.end, visible[r].end)};
    }
    return any;
  }

  void attend_block(int64_t block, const Workspace& w, const Rows& out) const {
    const Range any = look(block, w.visible);
    if (any.begin >= any.end) return;
    const int64_t count = std::min(key_block, shape_.kv_len - block * key_block);
    const float* k = load_keys(kernels_, item_.kv, kv_head_, block, count, shape_.head_dim, w.k);
    load_values(kernels_, item_.kv, kv_head_, block, any, shape_.v_head_dim, stride(), w.v);
    kernels_.score(w.q, rows(), shape_.head_dim, k, w.scores);
    kernels_.softmax(w.scores, w.visible, rows(), out.states, out.acc, stride());
    accumulate(any, w, out);
  }

  /// A weight of 0 takes a key out, unless its value is NaN or infinite: then rows that see
  /// different keys go one by one, each over its own.
  void accumulate(Range any, const Workspace& w, const Rows& out) const {
    const bool alike =
        std::all_of(w.visible, w.visible + rows(), [&](const Range& r) { return r == any; });
    if (alike ||
        kernels_.all_finite(w.v + any.begin * stride(), (any.end - any.begin) * stride())) {
      kernels_.accumulate(w.scores, rows(), w.v, stride(), any, out.acc);
      return;
    }
    for (int64_t r = 0; r < rows(); ++r) {
      if (w.visible[r].begin >= w.visible[r].end) continue;
      kernels_.accumulate(w.scores + r * key_block, 1, w.v, stride(), w.visible[r],
                          out.acc + r * stride());
    }
  }

  void write(const AnyMutView<3>& out, int64_t row, const float* values) const {
    const int64_t base = token(row) * out.strides[0] + head(row) * out.strides[1];
    if (out.strides[2] == 1) {
      auto* p = static_cast<char*>(out.data) + base * dtype_bytes(out.dtype);
      kernels_.encode(out.dtype, values, shape_.v_head_dim, p);
      return;
    }
    for (int64_t d = 0; d < shape_.v_head_dim; ++d) {
      store_element(out.data, out.dtype, base + d * out.strides[2], values[d]);
    }
  }

  const kernels::Table& kernels_;
  const Job& job_;
  const AttendItem& item_;
  const ItemShape& shape_;
  int64_t kv_head_, t_begin_, t_end_;
};

void run_unit(const kernels::Table& kernels, const Job& job, const Unit& unit, const Workspace& w,
              float* partials) {
  const Tile tile(kernels, job, unit.item, unit.kv_head, unit.t_begin, unit.t_end);
  tile.load_queries(w.q);
  if (unit.partial >= 0) {
    tile.attend_chunk(unit.chunk_begin, w, rows_at(partials + unit.partial, tile.rows()));
    return;
  }
  w.total.reset(tile.rows(), tile.stride());
  for (int64_t chunk = unit.chunk_begin; chunk < unit.chunk_end; ++chunk) {
    tile.attend_chunk(chunk, w, w.part);
    tile.merge(w.total, w.part);
  }
  tile.finish(w.total);
}

void run_merge(const kernels::Table& kernels, const Job& job, const MergeJob& merge,
               const Workspace& w, float* partials) {
  const Tile tile(kernels, job, merge.item, merge.kv_head, merge.t_begin, merge.t_end);
  w.total.reset(tile.rows(), tile.stride());
  const int64_t v_head_dim = job.shapes[static_cast<size_t>(merge.item)].v_head_dim;
  for (int64_t i = 0; i < merge.count; ++i) {
    float* memory = partials + merge.first + i * partial_size(tile.rows(), v_head_dim);
    tile.merge(w.total, rows_at(memory, tile.rows()));
  }
  tile.finish(w.total);
}

/// Below this many multiply-adds, waking threads costs more than they give.
constexpr double worth_threads = 1e5;

}  // namespace

void run(Context::Impl& context, const Job& job, std::span<const Unit> units,
         std::span<const MergeJob> merges, const PlanSize& size) {
  const int64_t per_thread = Workspace::floats(size);
  float* memory =
      context.scratch<float>(Scratch::attend_threads, per_thread * context.pool.n_threads());
  float* partials = context.scratch<float>(Scratch::attend_partials, size.partial_floats);
  const auto loop = [&](int64_t n, const auto& body) {
    if (size.multiply_adds < worth_threads) {
      const Workspace w(memory, size);
      for (int64_t i = 0; i < n; ++i) body(i, w);
      return;
    }
    context.pool.parallel_for(
        n, [&](int64_t i, int thread) { body(i, Workspace(memory + thread * per_thread, size)); });
  };
  loop(static_cast<int64_t>(units.size()), [&](int64_t i, const Workspace& w) {
    run_unit(*context.kernels, job, units[static_cast<size_t>(i)], w, partials);
  });
  loop(static_cast<int64_t>(merges.size()), [&](int64_t i, const Workspace& w) {
    run_merge(*context.kernels, job, merges[static_cast<size_t>(i)], w, partials);
  });
}

}  // namespace gqa
