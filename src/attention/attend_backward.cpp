// attend_backward(): check, plan, run.
#include <algorithm>

#include "attention/backward_check.h"
#include "attention/backward_plan.h"
#include "attention/backward_run.h"
#include "attention/check.h"
#include "gqa/attention_backward.h"

namespace gqa {
namespace {

int64_t most_pages(std::span<const AttendBackwardItem> batch) {
  size_t most = 0;
  for (const AttendBackwardItem& item : batch) {
    if (const auto* kv = std::get_if<StridedKv>(&item.forward.kv)) {
      most = std::max(most, kv->pages.size());
    }
  }
  return static_cast<int64_t>(most);
}

}  // namespace

void attend_backward(Context& context, std::span<const AttendBackwardItem> batch,
                     const AttendOptions& options, std::span<float> dsinks) {
  Context::Impl& impl = context.impl();
  check_options("attend_backward", options);
  auto* shapes = impl.scratch<ItemShape>(Scratch::backward_shapes, std::ssize(batch));
  auto* pages = impl.scratch<int32_t>(Scratch::backward_pages, most_pages(batch));
  int64_t count = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    shapes[i] = check_backward_item({"attend_backward", i}, batch[i], options, pages);
    count += shapes[i].kv_heads;
  }
  const BackwardJob job{batch, {shapes, batch.size()}, options};
  check_dsinks(job.shapes, options, dsinks);
  auto* heads = impl.scratch<BackwardHead>(Scratch::backward_heads, count);
  BackwardSize size = plan_heads(*impl.kernels, job, heads);
  const std::span<const BackwardHead> all{heads, static_cast<size_t>(size.heads)};
  size.units = plan_units(job, nullptr);
  auto* units = impl.scratch<BackwardUnit>(Scratch::backward_units, size.units);
  plan_units(job, units);
  run_backward(impl, job, all, {units, static_cast<size_t>(size.units)}, size, dsinks);
}

}  // namespace gqa
