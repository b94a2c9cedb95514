#include "kernels/context.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace gqa {
namespace {

/// Cores that cgroup v2 or v1 grants, or a large number where there is no limit.
double cgroup_cores() {
  std::string quota;
  double period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> quota >> period) {
    if (quota == "max" || period <= 0) return 1e9;
    return std::strtod(quota.c_str(), nullptr) / period;
  }
  double limit = 0;
  std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (q >> limit && p >> period && limit > 0 && period > 0) return limit / period;
  return 1e9;
}

const kernels::Table* find_table(std::string_view isa) {
  if (isa.empty()) return kernels::tables().front();
  const auto named = [&](std::span<const kernels::Table* const> tables) {
    const auto found =
        std::find_if(tables.begin(), tables.end(), [&](const auto* t) { return t->isa == isa; });
    return found == tables.end() ? nullptr : *found;
  };
  if (const auto* table = named(kernels::tables())) return table;
  if (kernels::more_tables) {
    if (const auto* table = named(kernels::more_tables())) return table;
  }
  fail(ErrorKind::usage, "instruction set '{}' is not one of this machine's: {}", isa,
       fmt::join(available_isas(), ", "));
}

}  // namespace

int default_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  return std::max(1, static_cast<int>(std::min<double>(cores, std::ceil(cgroup_cores()))));
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const auto* table : kernels::tables()) names.emplace_back(table->isa);
  return names;
}

Context::Context(const ContextOptions& options) {
  require(options.threads >= 0 && options.threads <= 1024, "threads: expected 0 to 1024, got {}",
          options.threads);
  const int threads = options.threads == 0 ? default_threads() : options.threads;
  impl_ = std::make_unique<Impl>(threads, find_table(options.isa), options.pin);
}

Context::~Context() = default;

int Context::threads() const { return impl_->pool.n_threads(); }
std::string_view Context::isa() const { return impl_->kernels->isa; }

}  // namespace gqa
