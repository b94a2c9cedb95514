// attend(): check, plan, run.
#include "attention/check.h"
#include "attention/plan.h"
#include "attention/run.h"
#include "gqa/attention.h"

namespace gqa {

void attend(Context& context, std::span<const AttendItem> batch, const AttendOptions& options) {
  Context::Impl& impl = context.impl();
  check_options("attend", options);
  auto* shapes =
      impl.scratch<ItemShape>(Scratch::attend_shapes, static_cast<int64_t>(batch.size()));
  for (size_t i = 0; i < batch.size(); ++i) {
    shapes[i] = check_item({"attend", i}, batch[i], options);
  }
  const Job job{batch, {shapes, batch.size()}, options};
  const PlanSize size = plan(job.shapes, options.mask, nullptr, nullptr);
  auto* units = impl.scratch<Unit>(Scratch::attend_units, size.units);
  auto* merges = impl.scratch<MergeJob>(Scratch::attend_merges, size.merges);
  plan(job.shapes, options.mask, units, merges);
  run(impl, job, {units, static_cast<size_t>(size.units)},
      {merges, static_cast<size_t>(size.merges)}, size);
}

}  // namespace gqa
