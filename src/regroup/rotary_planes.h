// Which rotary planes of keys can go.
#pragma once

#include <cstdint>
#include <vector>

#include "regroup/block_attention.h"
#include "regroup/grams.h"

namespace gqa {

/// What a layer puts out without some of its planes, to first order: [planes, planes], the inner
/// products, summed over tokens (every so many-th of a large model's), of what each plane's
/// contribution to the scores does to the output. The sum over the block of the planes that go is
/// the squared change of the output. A part of the scores that is alike for all keys, which softmax
/// does not see, does not count. `block` must have run with `heads`.
Matrix plane_effects(const BlockShape& shape, const BlockAttention& block, const Heads& heads);

/// As far as weights alone tell: on the diagonal the energy of the planes' contributions,
/// queries taken as independent of keys.
Matrix plane_energies(const HeadGrams& grams);

/// Ways to keep so many planes, each in ascending order, at most `candidates` of them: first the
/// one that costs least of those found (planes go one after the other, each the one that adds
/// least, and are exchanged while that helps), then what one exchange makes of it, the cheapest
/// first.
std::vector<std::vector<int64_t>> choose_planes(const Matrix& costs, int64_t keep,
                                                int64_t candidates);

/// Queries and keys with these planes alone, queries scaled so that scores stay what the planes
/// make of them although attention divides by the root of a smaller head size; room for values and
/// outputs of as many dimensions, all zero.
Heads with_planes(const Heads& heads, const std::vector<int64_t>& planes);

}  // namespace gqa
