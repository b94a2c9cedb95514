// ApproxStats, beside exact attention.
#include "gqa/approx.h"

namespace gqa {
namespace {

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

}  // namespace

ApproxShares shares_of(const ApproxStats& stats) {
  return {.keys_read = share(stats.keys_read, stats.keys_visible),
          .kv_bytes = share(stats.bytes_read, stats.bytes_visible),
          .select = share(stats.select_seconds, stats.select_seconds + stats.attend_seconds),
          .chosen = stats.chosen};
}

}  // namespace gqa
