// Keeping threads on cores.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <vector>

namespace gqa {

/// Cores that the calling thread may run on, in the order in which to fill them: one hardware
/// thread of each physical core comes before the others. At least one, unless the system does not
/// tell.
std::vector<int> usable_cores();

/// Keeps the calling thread on one core, if the system lets it.
void pin_thread(int core);

/// Gives the thread that made it back its cores.
class AffinityGuard {
 public:
  AffinityGuard();
  ~AffinityGuard();
  AffinityGuard(const AffinityGuard&) = delete;
  AffinityGuard& operator=(const AffinityGuard&) = delete;

 private:
  pid_t thread_;
  cpu_set_t cores_;
  bool known_;
};

}  // namespace gqa
