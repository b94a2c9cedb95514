// Where learning groups begins: shared heads that belong to nobody yet.
#pragma once

#include "core/random.h"
#include "regroup/layer_study.h"
#include "regroup/relaxed_heads.h"

namespace gqa {

/// The layer (balanced()) with so many shared heads: of all directions of all heads, plane by plane
/// and among values, those that keep the most of scores and outputs, as closed_form() weighs them,
/// but at random among the shared heads, so that none is any group's. Factors and maps predict each
/// head from all of them (least squares under the study's moments); the assignment is even.
/// Shared heads that began as those of some groups would only ever find these groups again.
RelaxedHeads relaxed_start(Context::Impl& context, const LayerStudy& study, int64_t groups,
                           Random& random);

}  // namespace gqa
