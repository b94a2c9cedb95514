#include "regroup/averaged_moments.h"

#include <algorithm>
#include <utility>

#include "regroup/lumps.h"

namespace gqa {
namespace {

/// Query heads [first, end) of a layer, and the KV heads that they read.
struct SomeHeads {
  std::vector<int64_t> q_begin;
  BlockWeights weights;  ///< without outputs
};

SomeHeads some_heads(const Heads& heads, int64_t first, int64_t end) {
  SomeHeads some;
  const auto begin = std::upper_bound(heads.q_begin.begin(), heads.q_begin.end(), first) - 1;
  const auto stop = std::lower_bound(heads.q_begin.begin(), heads.q_begin.end(), end);
  for (auto it = begin; it <= stop; ++it) {
    some.q_begin.push_back(std::clamp(*it, first, end) - first);
  }
  const int64_t d = heads.head_dim;
  const int64_t row = (begin - heads.q_begin.begin()) * d;
  const int64_t rows = (stop - begin) * d;
  some.weights.q = heads.q.middleRows(first * d, (end - first) * d).cast<float>();
  some.weights.k = heads.k.middleRows(row, rows).cast<float>();
  some.weights.v = heads.v.middleRows(row, rows).cast<float>();
  some.weights.o.resize(0, (end - first) * d);
  return some;
}

}  // namespace

AveragedMoments::AveragedMoments(Context::Impl& context, BlockShape shape, ScratchPlace place,
                                 int64_t most_bytes)
    : context_(&context),
      shape_(std::move(shape)),
      place_(std::move(place)),
      most_bytes_(most_bytes),
      of_head_(static_cast<size_t>(shape_->q_heads())) {
  place_.in_memory_bytes /= shape_->q_heads();  // the bound is on all of them
}

AveragedMoments::Map AveragedMoments::of(const Heads& heads, const RowsRef& inputs,
                                         int64_t q_head) {
  const auto& wanted = of_head_[static_cast<size_t>(q_head)];
  if (!wanted) {
    const int64_t each = int64_t{sizeof(double)} * inputs.cols() * inputs.cols();
    const int64_t some = std::max<int64_t>(1, most_bytes_ / each);
    const int64_t first = q_head / some * some;
    take(heads, inputs, first, std::min(first + some, shape_->q_heads()));
  }
  return wanted->map();
}

void AveragedMoments::take(const Heads& heads, const RowsRef& inputs, int64_t first, int64_t end) {
  const SomeHeads some = some_heads(heads, first, end);
  BlockShape shape = *shape_;
  shape.q_begin = some.q_begin;
  std::vector<ScratchMatrix<Matrix>> sums;
  for (int64_t h = first; h < end; ++h) {
    sums.emplace_back(place_, inputs.cols(), inputs.cols());
    sums.back().map().setZero();
  }
  for_lumps(*context_, shape, inputs, some.weights,
            [&](const BlockShape& part, const BlockAttention& block, int64_t) {
              const double share = static_cast<double>(part.window_begin.back()) /
                                   static_cast<double>(inputs.rows());
              for (size_t h = 0; h < sums.size(); ++h) {
                sums[h].map() += share * block.averaged_moments(static_cast<int64_t>(h));
              }
            });
  for (int64_t h = first; h < end; ++h) {
    of_head_[static_cast<size_t>(h)].emplace(std::move(sums[static_cast<size_t>(h - first)]));
  }
}

}  // namespace gqa
