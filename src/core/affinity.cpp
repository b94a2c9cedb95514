#include "core/affinity.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace gqa {
namespace {

/// The first hardware thread of this core's physical core; the core itself where nobody tells.
int first_sibling(int core) {
  std::ifstream in(
      fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", core));
  int first = core;
  return in >> first ? first : core;
}

}  // namespace

std::vector<int> usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  std::stable_partition(cores.begin(), cores.end(), [&](int core) {
    const int first = first_sibling(core);
    return first == core || !CPU_ISSET(first, &set);
  });
  return cores;
}

void pin_thread(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  static_cast<void>(sched_setaffinity(0, sizeof set, &set));
}

AffinityGuard::AffinityGuard() : thread_(gettid()), cores_() {
  known_ = sched_getaffinity(thread_, sizeof cores_, &cores_) == 0;
}

AffinityGuard::~AffinityGuard() {
  if (known_) static_cast<void>(sched_setaffinity(thread_, sizeof cores_, &cores_));
}

}  // namespace gqa
