// Which heads become one, learned by gradients in what the layer's attention puts out.
#pragma once

#include <functional>

#include "regroup/layer_study.h"
#include "regroup/relaxed_heads.h"

namespace gqa {

struct LearnOptions {
  int64_t groups = 0;
  bool equal = true;     ///< groups of equal size
  int starts = 4;        ///< of which the best one wins
  int steps = 200;       ///< gradient steps from each
  int64_t windows = 2;   ///< of text, in each step
  double rate = 0.06;    ///< the highest, relative to a matrix's root mean square; of logits as is
  double warmest = 1;    ///< temperature of the assignment at the beginning,
  double coolest = 0.1;  ///< and at the end
  double hardness = 1;   ///< weight of assignments that are not hard, at the end
  double balance = 1;    ///< weight of uneven groups, where they are to be equal
  uint64_t seed = 0;     ///< of the starts, the windows' order, and searches
  int64_t layer = 0;     ///< likewise
};

/// All of RelaxedHeads is learned together by Adam (Kingma and Ba 2015), on a few windows a step,
/// for the layer to put out what it does; errors are relative to its square. Meanwhile the
/// temperature falls geometrically (Jang et al. 2017, Maddison et al. 2017, without their noise).
/// Logits could make up for that, and a mixture can do more than any group: so what is left of
/// sum_a (1 - p_a . p_a) costs more and more. Then come the groups that keep heads together that
/// share their assignment. Of what several starts find, the one wins whose closed_form(), outputs
/// refitted, has the least error. In canonical order. `shape` is that of the study's heads. No bit
/// depends on the number of threads. `step` is called at every step, and may throw.
HeadGroups learn_groups(Context::Impl& context, const BlockShape& shape, const LayerStudy& study,
                        const LearnOptions& options, const std::function<void()>& step = {});

/// The partition into groups with the least sum over heads a of 1 - mean over b in a's group of
/// p_a . p_b, for rows p of an assignment.
HeadGroups rounded(const Rows& assignment, bool equal, uint64_t seed);

}  // namespace gqa
