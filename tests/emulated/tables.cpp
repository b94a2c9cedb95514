#include "emulated/tables.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "emulated/amx.h"

namespace gqa::kernels {
namespace {

#if defined(__x86_64__)
/// One of the machine's own tables, or none.
const Table* own(std::string_view isa) {
  const auto found = std::find_if(tables().begin(), tables().end(),
                                  [&](const Table* table) { return table->isa == isa; });
  return found == tables().end() ? nullptr : *found;
}

std::vector<const Table*> make_emulated() {
  std::vector<const Table*> made;
  const Table* vnni = own("avx512_vnni");
  if (const Table* avx512 = own("avx512")) {
    made.push_back(&hardware_avx512::emulated_amx_table(vnni ? *vnni : *avx512));
  }
  if (const Table* avx2 = own("avx2"); avx2 && !vnni) {
    const Table& emulated = emulated_avx512::vnni_table(*avx2);
    if (made.empty()) made.push_back(&emulated_avx512::emulated_amx_table(emulated));
    made.push_back(&emulated);
  }
  return made;
}
#else
std::vector<const Table*> make_emulated() { return {}; }
#endif

std::span<const Table* const> all() {
  static const std::vector<const Table*> list = [] {
    std::vector<const Table*> made(emulated_tables().begin(), emulated_tables().end());
    made.push_back(&emulated_pairs_table());
    made.push_back(&stretches_table());
    return made;
  }();
  return list;
}

[[maybe_unused]] const bool registered = (more_tables = all, true);

}  // namespace

std::span<const Table* const> emulated_tables() {
  static const std::vector<const Table*> list = make_emulated();
  return list;
}

}  // namespace gqa::kernels
