// Specs of attention, from text and back.
#include <string>
#include <vector>

#include "approx/spec_forms.h"
#include "core/fail.h"

namespace gqa {
namespace {

[[noreturn]] void refuse(std::string_view text, std::string_view problem) {
  fail(ErrorKind::usage, "expected {}, got '{}' ({}); nearest: {}", spec_grammar(), text, problem,
       attention_text(nearest_spec(text)));
}

/// "B", "C[,PAGES]"
std::string parameters_text(const SpecForm& form) {
  std::string text;
  for (const SpecParameter& parameter : form.parameters) {
    const std::string_view comma = text.empty() ? "" : ",";
    text += parameter.optional ? fmt::format("[{}{}]", comma, parameter.name)
                               : fmt::format("{}{}", comma, parameter.name);
  }
  return text;
}

/// What is wrong with the number of parameters; empty where nothing is.
std::string count_problem(const SpecForm& form, size_t given) {
  if (given > form.parameters.size()) {
    return form.parameters.empty()
               ? fmt::format("{} takes no number", form.name)
               : fmt::format("{} takes {}, no more", form.name, parameters_text(form));
  }
  for (const SpecParameter& parameter : form.parameters.subspan(given)) {
    if (!parameter.optional) return fmt::format("{} is missing", parameter.name);
  }
  return {};
}

struct Text {
  std::string operator()(const ExactAttention&) const { return "exact"; }
  std::string operator()(const BlockLocal& s) const { return fmt::format("block:{}", s.block); }
  std::string operator()(const SlidingWindow& s) const {
    return fmt::format("window:{}", s.window);
  }
  std::string operator()(const Clustered& s) const {
    return s.rescored_pages == 0 ? fmt::format("clustered:{}", s.groups)
                                 : fmt::format("clustered:{},{}", s.groups, s.rescored_pages);
  }
  std::string operator()(const GlobalLocal& s) const {
    return fmt::format("global-local:{},{}", s.window, s.block);
  }
  std::string operator()(const TopPages& s) const { return fmt::format("topk:{}", s.pages); }
  // Reals print as the shortest text that reads as the same number.
  std::string operator()(const TopMass& s) const { return fmt::format("topp:{}", s.mass); }
  std::string operator()(const LowRank& s) const {
    return s.keys ? fmt::format("lowrank:{},{}", s.rank, *s.keys)
                  : fmt::format("lowrank:{}", s.rank);
  }
  std::string operator()(const DynamicGroups& s) const { return fmt::format("dynamic:{}", s.loss); }
};

}  // namespace

AttentionSpec parse_attention(std::string_view text) {
  const SpecParts parts = split_spec(text);
  for (const SpecForm& form : spec_forms()) {
    if (form.name != parts.name) continue;
    const std::string problem = count_problem(form, parts.numbers.size());
    if (!problem.empty()) refuse(text, problem);
    std::vector<double> values;
    for (size_t i = 0; i < parts.numbers.size(); ++i) {
      const SpecNumber number = read_spec_number(form.parameters[i], parts.numbers[i]);
      if (!number.value) refuse(text, number.problem);
      values.push_back(*number.value);
    }
    return form.make(values);
  }
  refuse(text, fmt::format("no variant '{}'", parts.name));
}

std::string attention_text(const AttentionSpec& spec) { return std::visit(Text{}, spec); }

}  // namespace gqa
