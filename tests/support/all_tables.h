// All tables of kernels that this machine runs, those in software among them.
#pragma once

#include <vector>

#include "emulated/tables.h"
#include "kernels/kernels.h"

namespace gqa::test {

inline std::vector<const kernels::Table*> all_tables() {
  std::vector<const kernels::Table*> all;
  for (const auto some : {kernels::tables(), kernels::emulated_tables()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

}  // namespace gqa::test
