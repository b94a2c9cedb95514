#include "attention/backward_run.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "attention/backward_bias.h"
#include "attention/backward_chunk.h"
#include "attention/backward_rows.h"
#include "attention/backward_tile.h"
#include "attention/backward_workspace.h"

namespace gqa {
namespace {

/// Below this many multiply-adds, waking threads costs more than they give.
constexpr double worth_threads = 1e5;

/// A tile's dq is the sum over chunks, each from 0, in ascending order. Chunks of a head may be
/// different threads' work: the one that comes second waits, tile by tile, for the one before.
/// Both go through tiles in the same order, so that it rarely has to; and whoever waits, waits for
/// a unit that was taken before its own, so that none waits for ever.
class Progress {
 public:
  explicit Progress(int64_t* chunks) : chunks_(chunks) {}

  void clear(int64_t tile) const { chunks_[tile] = 0; }
  /// Until `chunk` has been added to the tile's dq; -1: no need to.
  void wait(int64_t tile, int64_t chunk) const {
    if (chunk < 0) return;
    while (std::atomic_ref(chunks_[tile]).load(std::memory_order_acquire) != chunk + 1) {
      std::this_thread::yield();
    }
  }
  void added(int64_t tile, int64_t chunk) const {
    std::atomic_ref(chunks_[tile]).store(chunk + 1, std::memory_order_release);
  }

 private:
  int64_t* chunks_;  ///< [tiles]: one more than the last chunk that was added
};

class BackwardRun {
 public:
  BackwardRun(Context::Impl& context, const BackwardJob& job, std::span<const BackwardHead> heads,
              const BackwardSize& size)
      : context_(context),
        kernels_(*context.kernels),
        job_(job),
        heads_(heads),
        size_(size),
        terms_{context.scratch<float>(Scratch::backward_rows, 2 * size.rows), nullptr},
        progress_(context.scratch<int64_t>(Scratch::backward_progress, size.tiles)),
        dq_(context.scratch<float>(Scratch::backward_dq, size.dq_floats)),
        dbias_(context.scratch<float>(Scratch::backward_dbias, size.dbias_floats)),
        per_thread_(BackwardWorkspace::floats(size)),
        memory_(context.scratch<float>(Scratch::backward_threads,
                                       per_thread_ * context.pool.n_threads())) {
    terms_.delta = terms_.lse + size.rows;
  }

  void prepare();
  void units(std::span<const BackwardUnit> units);
  void sinks(std::span<float> dsinks);
  void finish_biases();

 private:
  template <typename Body>
  void loop(int64_t n, const Body& body) {
    if (size_.multiply_adds < worth_threads) {
      for (int64_t i = 0; i < n; ++i) body(i, 0);
    } else {
      context_.pool.parallel_for(n, body);
    }
  }

  template <typename Body>
  void for_bias_rows(const Body& body);
  void run_unit(const BackwardUnit& unit, const BackwardWorkspace& w);
  void run_chunk(const BackwardHead& head, int64_t chunk, const BackwardWorkspace& w);
  void run_tile(const BackwardHead& head, int64_t tile, int64_t chunk, BackwardChunk& keys,
                const BiasSums* dbias, const BackwardWorkspace& w);

  const AttendBackwardItem& item(const BackwardHead& head) const {
    return job_.batch[static_cast<size_t>(head.item)];
  }
  const ItemShape& shape(const BackwardHead& head) const {
    return job_.shapes[static_cast<size_t>(head.item)];
  }
  BiasSums bias_of(const BackwardHead& head) const {
    return {item(head).dbias, shape(head), head.dbias >= 0 ? dbias_ + head.dbias : nullptr};
  }
  BackwardWorkspace workspace(int thread) const { return {memory_ + thread * per_thread_, size_}; }

  Context::Impl& context_;
  const kernels::Table& kernels_;
  const BackwardJob& job_;
  std::span<const BackwardHead> heads_;
  const BackwardSize& size_;
  RowTerms terms_;
  Progress progress_;
  float* dq_;
  float* dbias_;
  int64_t per_thread_;
  float* memory_;
};

/// Row terms, and zeros where nothing will be added.
void BackwardRun::prepare() {
  loop(size_.tiles, [&](int64_t i, int thread) {
    const BackwardHead& head = *(
        std::upper_bound(heads_.begin(), heads_.end(), i,
                         [](int64_t tile, const BackwardHead& h) { return tile < h.first_tile; }) -
        1);
    const int64_t tile = i - head.first_tile;
    const int64_t t_begin = tile * head.tile_tokens;
    load_row_terms(kernels_, job_, head, t_begin,
                   std::min(shape(head).q_len, t_begin + head.tile_tokens), terms_,
                   workspace(thread).chunk.rows);
    progress_.clear(i);
    if (!item(head).dq.data) return;
    const BackwardTile rows(kernels_, job_, head, tile, terms_);
    if (rows.seen_after(-1) < 0) rows.clear_dq(workspace(thread));
  });
  for_bias_rows([](const BiasSums& dbias, int64_t row) { dbias.clear(row); });
}

/// body(dbias, row) for all rows of all items' dbias.
template <typename Body>
void BackwardRun::for_bias_rows(const Body& body) {
  for (const BackwardHead& head : heads_) {
    if (head.kv_head != 0 || !item(head).dbias.data) continue;
    const BiasSums dbias = bias_of(head);
    loop(dbias.rows(), [&](int64_t row, int) { body(dbias, row); });
  }
}

void BackwardRun::units(std::span<const BackwardUnit> units) {
  // A counter of its own: units must be taken in their order.
  std::atomic<size_t> next{0};
  loop(std::ssize(units), [&](int64_t, int thread) {
    run_unit(units[next.fetch_add(1, std::memory_order_relaxed)], workspace(thread));
    kernels_.end_run();
  });
}

void BackwardRun::run_unit(const BackwardUnit& unit, const BackwardWorkspace& w) {
  for (int64_t chunk = unit.chunk_begin; chunk < unit.chunk_end; ++chunk) {
    for (int64_t h = unit.head_begin; h < unit.head_end; ++h) {
      run_chunk(heads_[static_cast<size_t>(h)], chunk, w);
    }
  }
}

void BackwardRun::run_chunk(const BackwardHead& head, int64_t chunk, const BackwardWorkspace& w) {
  const AttendBackwardItem& own = item(head);
  if (!own.dq.data && !own.dk.data && !own.dv.data && !own.dbias.data) return;
  const float scale = score_scale(job_.options, shape(head));
  BackwardChunk keys(kernels_, own, shape(head), head.kv_head, chunk, scale, w.chunk);
  std::optional<BiasSums> dbias;
  if (own.dbias.data) dbias.emplace(bias_of(head));
  // The last tile first: under a causal mask it sees all chunks, so that none has to wait for long.
  for (int64_t tile = head.tiles; tile-- > 0;) {
    run_tile(head, tile, chunk, keys, dbias ? &*dbias : nullptr, w);
  }
  keys.write();
}

void BackwardRun::run_tile(const BackwardHead& head, int64_t tile, int64_t chunk,
                           BackwardChunk& keys, const BiasSums* dbias, const BackwardWorkspace& w) {
  BackwardTile rows(kernels_, job_, head, tile, terms_);
  if (!rows.sees(chunk)) return;
  rows.load(w);
  rows.work(chunk, keys, dbias, w);
  if (!item(head).dq.data) return;
  const int64_t before = rows.seen_before(chunk);
  progress_.wait(head.first_tile + tile, before);
  rows.add_dq(before < 0, rows.seen_after(chunk) < 0, head.dq >= 0 ? dq_ + head.dq : nullptr, w);
  progress_.added(head.first_tile + tile, chunk);
}

void BackwardRun::sinks(std::span<float> dsinks) {
  loop(std::ssize(dsinks), [&](int64_t h, int) {
    dsinks[static_cast<size_t>(h)] = sink_gradient(job_, heads_, h, terms_);
  });
}

void BackwardRun::finish_biases() {
  for_bias_rows([](const BiasSums& dbias, int64_t row) { dbias.write(row); });
}

}  // namespace

void run_backward(Context::Impl& context, const BackwardJob& job,
                  std::span<const BackwardHead> heads, std::span<const BackwardUnit> units,
                  const BackwardSize& size, std::span<float> dsinks) {
  BackwardRun run(context, job, heads, size);
  run.prepare();
  run.units(units);
  run.sinks(dsinks);
  run.finish_biases();
}

}  // namespace gqa
