#include <algorithm>

#include "gqa/tune.h"

namespace gqa {

void mark_front(std::vector<TunePoint>& points) {
  const auto beats = [](const TunePoint& a, const TunePoint& b) {
    const bool no_worse = a.kv_bytes_per_token <= b.kv_bytes_per_token && a.ppl <= b.ppl;
    return no_worse && (a.kv_bytes_per_token < b.kv_bytes_per_token || a.ppl < b.ppl);
  };
  for (TunePoint& point : points) {
    point.on_front =
        std::ranges::none_of(points, [&](const TunePoint& other) { return beats(other, point); });
  }
}

}  // namespace gqa
