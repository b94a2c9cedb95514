#include "regroup/learn_groups.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "regroup/refit_outputs.h"
#include "regroup/relaxed_start.h"
#include "regroup/windowed_block.h"
#include "regroup/windows.h"

namespace gqa {
namespace {

constexpr double hard_from = 0.7;  ///< of the way on, hardness has all of its weight

/// Steps are relative to the root mean square of where a matrix began; logits have a size already.
Adam adam_for(const RelaxedHeads& start) {
  std::vector<float> scales;
  std::vector<size_t> sizes;
  for (const auto part : parts_of(start)) {
    scales.push_back(scales.empty() ? 1.0f : static_cast<float>(root_mean_square(part)));
    sizes.push_back(part.size());
  }
  return Adam(std::move(scales), sizes);
}

/// By the assignment, of half of weight * sum over groups of (heads in it - heads / groups)^2.
Rows by_unevenness(const Rows& assignment, double weight) {
  Rows by(assignment.rows(), assignment.cols());
  const float even = static_cast<float>(assignment.rows()) / static_cast<float>(assignment.cols());
  by.rowwise() = static_cast<float>(weight) * (assignment.colwise().sum().array() - even).matrix();
  return by;
}

/// By the assignment, of half of weight * sum over heads a of (1 - p_a . p_a).
Rows by_softness(const Rows& assignment, double weight) {
  return static_cast<float>(-weight) * assignment;
}

/// Learns from one start after the other.
class Learner {
 public:
  Learner(Context::Impl& context, const BlockShape& shape, const LayerStudy& study,
          const LearnOptions& options, const std::function<void()>& step)
      : context_(context),
        shape_(shape),
        study_(study),
        options_(options),
        step_(step),
        split_(shape.windows()),
        some_(static_cast<size_t>(std::min(options.windows, std::ssize(split_.used)))),
        block_(context, shape, {study.inputs, study.output}, std::ssize(some_)),
        turns_(split_.used, Random(options.seed, RandomUse::learn, options.layer)),
        starts_(options.seed, RandomUse::learn_start, options.layer) {}

  HeadGroups run() {
    std::vector<HeadGroups> found;
    for (int i = 0; i < options_.starts; ++i) {
      HeadGroups groups =
          rounded(assignment(learned(), options_.coolest), options_.equal, options_.seed);
      if (std::ranges::find(found, groups) == found.end()) found.push_back(std::move(groups));
    }
    return *std::ranges::min_element(found, {}, [&](const auto& g) { return merged_error(g); });
  }

 private:
  /// Logits.
  Rows learned() {
    RelaxedHeads heads = relaxed_start(context_, study_, options_.groups, starts_);
    Adam adam = adam_for(heads);
    for (int i = 0; i < options_.steps; ++i) {
      if (step_) step_();
      const RelaxedHeads by = gradient(heads, static_cast<double>(i) / options_.steps);
      adam.step(parts_of(by), cosine_rate(options_.rate, i, options_.steps), parts_of(heads));
    }
    return heads.logits;
  }

  /// `way`: from 0 to 1.
  RelaxedHeads gradient(const RelaxedHeads& heads, double way) {
    const double temperature =
        options_.warmest * std::pow(options_.coolest / options_.warmest, way);
    const Rows p = assignment(heads.logits, temperature);
    turns_.draw(some_);
    block_.run(mixed(context_, heads, p), some_);
    BlockWeights by = block_.gradient();
    // Relative to what is wanted, as the other weights are.
    const auto share = static_cast<float>(1 / std::max(block_.wanted(), 1e-300));
    for (Rows* m : {&by.q, &by.k, &by.v, &by.o}) *m *= share;
    const double hardness = options_.hardness * std::pow(std::min(way / hard_from, 1.0), 2);
    return pullback(
        context_, heads, p, temperature, by,
        by_softness(p, hardness) + by_unevenness(p, options_.equal ? options_.balance : 0.0));
  }

  double merged_error(const HeadGroups& groups) {
    if (step_) step_();
    const Heads heads = closed_form(study_, groups);
    BlockShape shape = shape_;
    shape.q_begin = heads.q_begin;
    return refit_outputs(context_, shape, {study_.inputs, study_.output}, heads).after;
  }

  Context::Impl& context_;
  const BlockShape& shape_;
  const LayerStudy& study_;
  const LearnOptions& options_;
  const std::function<void()>& step_;
  const WindowSplit split_;
  std::vector<int64_t> some_;
  WindowedBlock block_;
  Turns turns_;
  Random starts_;
};

}  // namespace

HeadGroups learn_groups(Context::Impl& context, const BlockShape& shape, const LayerStudy& study,
                        const LearnOptions& options, const std::function<void()>& step) {
  return Learner(context, shape, study, options, step).run();
}

HeadGroups rounded(const Rows& assignment, bool equal, uint64_t seed) {
  const Matrix p = assignment.cast<double>();
  const Matrix together = p * p.transpose();
  const auto cost = [&](const std::vector<int64_t>& group) {
    double sum = 0;
    for (const int64_t a : group) {
      for (const int64_t b : group) sum += together(a, b);
    }
    const auto size = static_cast<double>(group.size());
    return std::max(size - sum / size, 0.0);
  };
  return cheapest_partition({.heads = p.rows(), .groups = p.cols(), .equal = equal, .seed = seed},
                            cost);
}

}  // namespace gqa
