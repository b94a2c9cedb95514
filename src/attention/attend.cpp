// attend(): validate, plan, run.
#include "gqa/attention.h"

#include <array>

#include "attention/plan.h"
#include "attention/run.h"
#include "core/fail.h"
#include "kv/pages.h"

namespace gqa {
namespace {

/// A shape for a message, formatted only if the message is needed.
template <size_t N>
auto list(const std::array<int64_t, N>& shape) {
  return fmt::join(shape, ", ");
}

/// Keys' side of an item's shape.
struct KvShapeOf {
  size_t item;
  ItemShape& shape;

  void operator()(const PackedKv& kv) const {
    const detail::KvLayer& layer = kv.layer();
    shape.kv_heads = layer.kv_heads;
    shape.head_dim = layer.head_dim;
    shape.v_head_dim = layer.v_head_dim;
    shape.kv_len = kv.len();
  }

  void operator()(const StridedKv& kv) const {
    const auto& k = kv.k.shape;
    const auto& v = kv.v.shape;
    require(k[0] == v[0] && k[1] == v[1] && k[2] == v[2],
            "attend: item {}: k has shape [{}] and v [{}]: all but the last must agree", item,
            list(k), list(v));
    require(k[1] >= 1 && k[0] >= 0, "attend: item {}: k has shape [{}]: pages need a size", item,
            list(k));
    const int64_t pages = kv.pages.empty() ? k[0] : static_cast<int64_t>(kv.pages.size());
    require(kv.len >= 0 && ceil_div(kv.len, k[1]) <= pages,
            "attend: item {}: {} keys do not fit {} pages of {}", item, kv.len, pages, k[1]);
    for (const int32_t page : kv.pages) {
      require(page >= 0 && page < k[0], "attend: item {}: page {} of {}", item, page, k[0]);
    }
    require(kv.first_key >= 0 && kv.first_key <= kv.len,
            "attend: item {}: first_key is {}, expected 0 to {}", item, kv.first_key, kv.len);
    shape.kv_heads = k[2];
    shape.head_dim = k[3];
    shape.v_head_dim = v[3];
    shape.kv_len = kv.len;
    shape.first_key = kv.first_key;
  }
};

ItemShape check(size_t i, const AttendItem& item) {
  ItemShape shape;
  std::visit(KvShapeOf{i, shape}, item.kv);
  const auto& q = item.q.shape;
  shape.q_len = q[0];
  shape.q_heads = q[1];
  require(q[0] >= 0 && q[1] >= 1, "attend: item {}: q has shape [{}]", i, list(q));
  require(shape.kv_heads >= 1 && q[1] % shape.kv_heads == 0,
          "attend: item {}: {} query heads are no multiple of {} KV heads", i, q[1],
          shape.kv_heads);
  require(shape.head_dim >= 1 && shape.v_head_dim >= 1, "attend: item {}: head sizes {} and {}", i,
          shape.head_dim, shape.v_head_dim);
  require(q[2] == shape.head_dim, "attend: item {}: q has head size {}, k has {}", i, q[2],
          shape.head_dim);
  const std::array<int64_t, 3> out{q[0], q[1], shape.v_head_dim};
  require(item.out.shape == out, "attend: item {}: out has shape [{}], expected [{}]", i,
          list(item.out.shape), list(out));
  if (item.lse.data) {
    const std::array<int64_t, 2> lse{q[0], q[1]};
    require(item.lse.shape == lse && item.lse.dtype == DType::f32,
            "attend: item {}: lse has shape [{}] and type {}, expected [{}] f32", i,
            list(item.lse.shape), dtype_name(item.lse.dtype), list(lse));
  }
  shape.q_start = item.q_start.value_or(shape.kv_len - shape.q_len);
  return shape;
}

}  // namespace

void attend(Context& context, std::span<const AttendItem> batch, const AttendOptions& options) {
  Context::Impl& impl = context.impl();
  auto* shapes =
      impl.scratch<ItemShape>(Scratch::attend_shapes, static_cast<int64_t>(batch.size()));
  for (size_t i = 0; i < batch.size(); ++i) shapes[i] = check(i, batch[i]);
  const Job job{batch, {shapes, batch.size()}, options.mask, options.scale};
  const PlanSize size = plan(job.shapes, job.mask, nullptr, nullptr);
  auto* units = impl.scratch<Unit>(Scratch::attend_units, size.units);
  auto* merges = impl.scratch<MergeJob>(Scratch::attend_merges, size.merges);
  plan(job.shapes, job.mask, units, merges);
  run(impl, job, {units, static_cast<size_t>(size.units)},
      {merges, static_cast<size_t>(size.merges)}, size);
}

}  // namespace gqa
