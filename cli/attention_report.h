// What approximate attention reads of what exact attention reads, in reports.
#pragma once

#include "cli/format.h"
#include "cli/terminal.h"
#include "gqa/approx.h"

namespace gqa::cli {

/// keys_read_share, kv_bytes_share, and chosen where something is.
Json shares_json(const ApproxShares& shares);
void add_shares(Fields& fields, const ApproxShares& shares);

}  // namespace gqa::cli
