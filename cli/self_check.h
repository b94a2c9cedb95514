// Attention against a few lines of plain code, on this machine.
#pragma once

#include <string>
#include <vector>

namespace gqa::cli {

struct SelfCheck {
  std::string isa;
  std::string cache;     ///< "f32", "f16", "bf16": our cache; "strided f32": a plain array
  double max_error = 0;  ///< largest absolute difference
  bool ok = false;
  std::string problem;  ///< what attend() threw, if it did
};

/// attend() on a small random problem, for every instruction set and cache type of this machine.
std::vector<SelfCheck> run_self_checks(int threads);

}  // namespace gqa::cli
