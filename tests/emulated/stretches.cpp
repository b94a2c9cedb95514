// Stretches of several blocks where no tiles want them.
#include <algorithm>

#include "emulated/tables.h"

namespace gqa::kernels {

const Table& stretches_table() {
  static const Table table = [] {
    const auto one_block = [](const Table* t) { return t->stretch(KvDType::bf16) == 1; };
    Table changed = **std::find_if(tables().begin(), tables().end(), one_block);
    changed.isa = "stretches";
    changed.stretch = [](KvDType) { return stretch_blocks; };
    return changed;
  }();
  return table;
}

}  // namespace gqa::kernels
