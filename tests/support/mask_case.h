// Masks for tests: what they mean, said a second time and plainly, and random ones.
#pragma once

#include "gqa/mask.h"
#include "reference/attention.h"
#include "support/random_array.h"

namespace gqa::test {

/// The oracle's side of a mask: a token at position p sees key s if every condition holds; a prefix
/// is seen whatever they say.
inline reference::Sees sees(const Mask& m, int64_t prefix) {
  return [m, prefix](int64_t p, int64_t s) {
    const bool no_later = !m.causal || s <= p;
    const bool near = m.window == 0 || std::abs(p - s) < m.window;
    const auto block_of = [&](int64_t x) { return (x + 1000 * m.block) / m.block; };
    const bool in_block = m.block == 0 || block_of(p) == block_of(s);
    const bool sink = s < m.sink_tokens;
    return s < prefix || (no_later && ((near && in_block) || sink));
  };
}

/// Each feature in about a third of the cases, in all combinations; sizes around `len`, around key
/// blocks, and tiny.
inline Mask draw_mask(Random& random, int64_t len) {
  const auto maybe_size = [&]() -> int64_t {
    if (draw(random, 0, 2) != 0) return 0;
    return pick<int64_t>(random, {1, 2, 7, 63, 64, 65, 100, draw(random, 1, len + 10)});
  };
  return {.causal = draw(random, 0, 2) != 0,
          .window = maybe_size(),
          .block = maybe_size(),
          .sink_tokens = draw(random, 0, 3) ? 0 : draw(random, 1, 70)};
}

}  // namespace gqa::test
