#include "cli/attention_report.h"

#include <fmt/format.h>

#include <string>

namespace gqa::cli {

Json shares_json(const ApproxShares& shares) {
  Json object{{"keys_read_share", shares.keys_read}, {"kv_bytes_share", shares.kv_bytes}};
  if (shares.chosen) {
    object["chosen"] = {
        {"mean", shares.chosen->mean}, {"min", shares.chosen->min}, {"max", shares.chosen->max}};
  }
  return object;
}

void add_shares(Fields& fields, const ApproxShares& shares) {
  const auto percent = [](double share) { return fmt::format("{:.2f} %", share * 100); };
  fields.add("keys read", percent(shares.keys_read));
  fields.add("KV bytes read", percent(shares.kv_bytes));
  if (shares.chosen) {
    fields.add("chosen", fmt::format("{:.1f} ({} to {})", shares.chosen->mean, shares.chosen->min,
                                     shares.chosen->max));
  }
}

}  // namespace gqa::cli
