#include "attention/run.h"

#include "attention/tile.h"

namespace gqa {
namespace {

Tile tile_of(const kernels::Table& kernels, const Job& job, int32_t item, int32_t kv_head,
             int64_t t_begin, int64_t t_end) {
  const auto i = static_cast<size_t>(item);
  return {kernels, job.batch[i], job.shapes[i], job.options, kv_head, t_begin, t_end};
}

void run_unit(const kernels::Table& kernels, const Job& job, const Unit& unit, const Workspace& w,
              float* partials) {
  const Tile tile = tile_of(kernels, job, unit.item, unit.kv_head, unit.t_begin, unit.t_end);
  tile.load_queries(w);
  if (unit.partial >= 0) {
    tile.attend_chunk(unit.chunk_begin, w, rows_at(partials + unit.partial, tile.rows()));
    return;
  }
  bool any = false;
  for (int64_t chunk = unit.chunk_begin; chunk < unit.chunk_end; ++chunk) {
    if (!tile.sees(chunk)) continue;
    tile.attend_chunk(chunk, w, any ? w.part : w.total);
    if (any) tile.merge(w.total, w.part);
    any = true;
  }
  if (!any) w.total.reset(tile.rows(), tile.stride());
  tile.finish(w.total);
}

void run_merge(const kernels::Table& kernels, const Job& job, const MergeJob& merge,
               float* partials) {
  const Tile tile = tile_of(kernels, job, merge.item, merge.kv_head, merge.t_begin, merge.t_end);
  const auto part = [&](int64_t i) {
    return rows_at(partials + merge.first + i * tile.partial_floats(), tile.rows());
  };
  for (int64_t i = 1; i < merge.count; ++i) tile.merge(part(0), part(i));
  tile.finish(part(0));
}

/// Below this many multiply-adds, waking threads costs more than they give.
constexpr double worth_threads = 1e5;

}  // namespace

void run(Context::Impl& context, const Job& job, std::span<const Unit> units,
         std::span<const MergeJob> merges, const PlanSize& size) {
  int64_t query_bytes = 0;
  for (const ItemShape& shape : job.shapes) {
    query_bytes =
        std::max(query_bytes, context.kernels->query_bytes(shape.kv_dtype, shape.head_dim));
  }
  const int64_t per_thread = Workspace::floats(size, query_bytes);
  float* memory =
      context.scratch<float>(Scratch::attend_threads, per_thread * context.pool.n_threads());
  float* partials = context.scratch<float>(Scratch::attend_partials, size.partial_floats);
  const auto loop = [&](int64_t n, const auto& body) {
    if (size.multiply_adds < worth_threads) {
      const Workspace w(memory, size, query_bytes);
      for (int64_t i = 0; i < n; ++i) body(i, w);
      return;
    }
    context.pool.parallel_for(n, [&](int64_t i, int thread) {
      body(i, Workspace(memory + thread * per_thread, size, query_bytes));
    });
  };
  loop(static_cast<int64_t>(units.size()), [&](int64_t i, const Workspace& w) {
    run_unit(*context.kernels, job, units[static_cast<size_t>(i)], w, partials);
    context.kernels->end_run();
  });
  loop(static_cast<int64_t>(merges.size()), [&](int64_t i, const Workspace&) {
    run_merge(*context.kernels, job, merges[static_cast<size_t>(i)], partials);
  });
}

}  // namespace gqa
