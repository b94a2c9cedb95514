#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "cli/args.h"
#include "cli/format.h"
#include "cli/machine.h"
#include "cli/self_check.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/context.h"
#include "gqa/version.h"

namespace gqa::cli {
namespace {

constexpr int unfit = 70;  // EX_SOFTWARE

struct DoctorArgs {
  Common common;
};

struct Findings {
  std::string isa;
  int threads = 0;
  Machine machine;
  std::vector<SelfCheck> checks;
  bool ok = false;
};

Json nullable(const std::optional<int64_t>& value) { return value ? Json(*value) : Json(); }
Json nullable(const std::string& value) { return value.empty() ? Json() : Json(value); }

Json as_json(const Findings& found) {
  const Machine& machine = found.machine;
  Json caches = Json::array();
  for (const Machine::Cache& cache : machine.caches) {
    caches.push_back({{"level", cache.level}, {"type", cache.type}, {"bytes", cache.bytes}});
  }
  Json checks = Json::array();
  for (const SelfCheck& check : found.checks) {
    checks.push_back({{"isa", check.isa},
                      {"cache", check.cache},
                      {"max_error", check.max_error},
                      {"ok", check.ok},
                      {"problem", nullable(check.problem)}});
  }
  return {{"version", GQA_VERSION},
          {"isa", found.isa},
          {"isas", available_isas()},
          {"threads", found.threads},
          {"cpu", nullable(machine.cpu)},
          {"logical_cores", machine.logical_cores},
          {"physical_cores", nullable(machine.physical_cores)},
          {"caches", caches},
          {"memory_bytes", nullable(machine.memory_bytes)},
          {"memory_available_bytes", nullable(machine.memory_available_bytes)},
          {"memory_limit_bytes", nullable(machine.memory_limit_bytes)},
          {"huge_pages", nullable(machine.huge_pages)},
          {"system", nullable(machine.system)},
          {"self_check", checks},
          {"ok", found.ok}};
}

std::string known(const std::string& text) { return text.empty() ? "unknown" : text; }
std::string known_bytes(const std::optional<int64_t>& bytes) {
  return bytes ? human_bytes(*bytes) : "unknown";
}

std::string caches_text(const Machine& machine) {
  std::vector<std::string> parts;
  parts.reserve(machine.caches.size());
  for (const Machine::Cache& cache : machine.caches) {
    const std::string kind = cache.type == "Data" ? "d" : cache.type == "Instruction" ? "i" : "";
    parts.push_back(fmt::format("L{}{} {}", cache.level, kind, human_bytes(cache.bytes)));
  }
  return known(fmt::format("{}", fmt::join(parts, ", ")));
}

std::string cores_text(const Machine& machine) {
  if (!machine.physical_cores) return std::to_string(machine.logical_cores);
  return fmt::format("{} ({} physical)", machine.logical_cores, *machine.physical_cores);
}

std::string memory_text(const Machine& machine) {
  const std::string limit =
      machine.memory_limit_bytes ? ", limited to " + human_bytes(*machine.memory_limit_bytes) : "";
  return fmt::format("{}, {} available{}", known_bytes(machine.memory_bytes),
                     known_bytes(machine.memory_available_bytes), limit);
}

std::string checks_text(const std::vector<SelfCheck>& checks) {
  std::vector<std::vector<std::string>> rows{{"isa", "cache", "max error", ""}};
  for (const SelfCheck& check : checks) {
    const std::string error = check.problem.empty() ? fmt::format("{:.1e}", check.max_error) : "-";
    rows.push_back({check.isa, check.cache, error, check.ok ? "ok" : "WRONG"});
  }
  std::string text = table_text(rows);
  for (const SelfCheck& check : checks) {
    if (!check.problem.empty()) {
      text += fmt::format("{}, {}: {}\n", check.isa, check.cache, check.problem);
    }
  }
  return text;
}

std::string as_text(const Findings& found) {
  const Machine& machine = found.machine;
  Fields fields;
  fields.add("gqa", GQA_VERSION);
  fields.add("isa", fmt::format("{} (of {})", found.isa, fmt::join(available_isas(), ", ")));
  fields.add("threads", std::to_string(found.threads));
  fields.add("cpu", known(machine.cpu));
  fields.add("cores", cores_text(machine));
  fields.add("caches", caches_text(machine));
  fields.add("memory", memory_text(machine));
  fields.add("huge pages", known(machine.huge_pages));
  fields.add("system", known(machine.system));
  return fields.text() + "\nattention against a plain computation in double precision\n" +
         checks_text(found.checks);
}

int run_doctor(const DoctorArgs& args) {
  Findings found;
  {
    const Context context(args.common.context());
    found.isa = context.isa();
    found.threads = context.threads();
  }
  found.machine = read_machine();
  found.checks = run_self_checks(found.threads);
  found.ok = !found.checks.empty() && std::all_of(found.checks.begin(), found.checks.end(),
                                                  [](const SelfCheck& check) { return check.ok; });
  if (args.common.json) {
    print_json(as_json(found));
  } else {
    print(as_text(found));
  }
  if (found.ok) return 0;
  report_error(
      "attention gives wrong results on this machine: please report what `gqa doctor` prints");
  return unfit;
}

}  // namespace

void declare_doctor(Command& verb) {
  auto args = std::make_shared<DoctorArgs>();
  add_common(verb, args->common);
  verb.run = [args] { return run_doctor(*args); };
}

}  // namespace gqa::cli
