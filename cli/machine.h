// What bug reports and `bench` say about the machine, from /proc, /sys and the C library.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gqa::cli {

/// What the system does not tell is empty.
struct Machine {
  struct Cache {
    int64_t level = 0;
    std::string type;  ///< "Data", "Instruction" or "Unified"
    int64_t bytes = 0;
  };
  std::string cpu;
  int64_t logical_cores = 0;
  std::optional<int64_t> physical_cores;
  std::vector<Cache> caches;  ///< of the first core
  /// Of the last-level caches of all cores, each counted once.
  std::optional<int64_t> last_level_bytes;
  std::optional<int64_t> memory_bytes;
  std::optional<int64_t> memory_available_bytes;
  std::optional<int64_t> memory_limit_bytes;  ///< of this control group
  std::string huge_pages;                     ///< transparent ones: "always", "madvise" or "never"
  std::string system;                         ///< kernel and processor architecture
};

Machine read_machine();

}  // namespace gqa::cli
