#include "cli/machine.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace gqa::cli {
namespace {

std::string first_line(const std::string& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// The number at the start of a text, times the unit that follows it.
std::optional<int64_t> size_from(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  while (text.starts_with(' ')) text.remove_prefix(1);
  const int64_t unit = text.starts_with('k') || text.starts_with('K') ? 1024
                       : text.starts_with('M')                        ? 1024 * 1024
                                                                      : 1;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(number, unit, &bytes)) return std::nullopt;
  return bytes;
}

/// "name : value" of /proc/cpuinfo and /proc/meminfo.
std::pair<std::string, std::string> split_field(const std::string& line) {
  const size_t colon = line.find(':');
  if (colon == std::string::npos) return {};
  const size_t name_end = line.find_last_not_of(" \t", colon == 0 ? 0 : colon - 1);
  const size_t value = line.find_first_not_of(" \t", colon + 1);
  return {line.substr(0, name_end + 1), value == std::string::npos ? "" : line.substr(value)};
}

void read_cpu(Machine& machine) {
  std::ifstream in("/proc/cpuinfo");
  std::set<std::pair<std::string, std::string>> cores;
  std::string package;
  for (std::string line; std::getline(in, line);) {
    const auto [name, value] = split_field(line);
    if ((name == "model name" || name == "Model") && machine.cpu.empty()) machine.cpu = value;
    if (name == "physical id") package = value;
    if (name == "core id") cores.emplace(package, value);
  }
  if (!cores.empty()) machine.physical_cores = static_cast<int64_t>(cores.size());
  machine.logical_cores = sysconf(_SC_NPROCESSORS_ONLN);
}

/// The caches of a core, and which cores share each.
std::vector<std::pair<Machine::Cache, std::string>> caches_of(int64_t core) {
  std::vector<std::pair<Machine::Cache, std::string>> caches;
  for (int i = 0;; ++i) {
    const std::string dir = fmt::format("/sys/devices/system/cpu/cpu{}/cache/index{}/", core, i);
    const auto bytes = size_from(first_line(dir + "size"));
    if (!bytes) return caches;
    const int64_t level = size_from(first_line(dir + "level")).value_or(0);
    caches.push_back(
        {{level, first_line(dir + "type"), *bytes}, first_line(dir + "shared_cpu_list")});
  }
}

void read_caches(Machine& machine) {
  for (const auto& [cache, sharers] : caches_of(0)) machine.caches.push_back(cache);
  std::map<std::string, int64_t> last_level;  // by the cores that share one
  for (int64_t core = 0; core < sysconf(_SC_NPROCESSORS_CONF); ++core) {
    const auto caches = caches_of(core);
    const auto last = std::max_element(
        caches.begin(), caches.end(),
        [](const auto& a, const auto& b) { return a.first.level < b.first.level; });
    if (last != caches.end()) last_level[last->second] = last->first.bytes;
  }
  for (const auto& [sharers, bytes] : last_level) {
    machine.last_level_bytes = machine.last_level_bytes.value_or(0) + bytes;
  }
}

void read_memory(Machine& machine) {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    const auto [name, value] = split_field(line);
    if (name == "MemTotal") machine.memory_bytes = size_from(value);
    if (name == "MemAvailable") machine.memory_available_bytes = size_from(value);
  }
  // "max" where there is no limit, which is no number; version 1 gives a huge one instead.
  auto limit = size_from(first_line("/sys/fs/cgroup/memory.max"));
  if (!limit) limit = size_from(first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
  if (limit && machine.memory_bytes && *limit < *machine.memory_bytes) {
    machine.memory_limit_bytes = limit;
  }
}

/// "always [madvise] never" -> "madvise"
std::string chosen_word(const std::string& line) {
  const size_t open = line.find('[');
  const size_t close = line.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return "";
  return line.substr(open + 1, close - open - 1);
}

}  // namespace

Machine read_machine() {
  Machine machine;
  read_cpu(machine);
  read_caches(machine);
  read_memory(machine);
  machine.huge_pages = chosen_word(first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
  utsname name{};
  if (uname(&name) == 0) {
    machine.system = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
  }
  return machine;
}

}  // namespace gqa::cli
