// What somebody may have meant by a text that is no spec.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "approx/spec_forms.h"

namespace gqa {
namespace {

/// Insertions, deletions, substitutions and swaps of neighbours that make one text the other
/// (optimal string alignment).
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before;  // the row before the last
  std::vector<size_t> last(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    std::vector<size_t> row(b.size() + 1, i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before = std::exchange(last, std::move(row));
  }
  return last.back();
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

/// Parameters of a form that a text lacks, has too many of, or gives wrongly.
size_t misfits(const SpecForm& form, const SpecParts& parts) {
  const size_t most = form.parameters.size();
  const size_t given = parts.numbers.size();
  size_t wrong = given > most ? given - most : 0;
  for (size_t i = 0; i < most; ++i) {
    wrong += i < given ? !read_spec_number(form.parameters[i], parts.numbers[i]).value
                       : !form.parameters[i].optional;
  }
  return wrong;
}

const SpecForm& nearest_form(const SpecParts& parts) {
  const std::string name = lower(parts.name).substr(0, 64);
  const auto rank = [&](const SpecForm& form) {
    return std::tuple(edit_distance(name, form.name), misfits(form, parts));
  };
  return *std::ranges::min_element(spec_forms(), {}, rank);
}

/// The number that a text begins with, brought into range.
double nearest_number(const SpecParameter& parameter, std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t+");
  if (begin == text.npos) return parameter.example;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return parameter.example;
  if (parameter.whole) value = std::round(value);
  // Nothing is nearest to an end that is not in range.
  const double least = parameter.above_least ? parameter.most / 100 : parameter.least;
  return value <= parameter.least ? least : std::min(value, parameter.most);
}

}  // namespace

AttentionSpec nearest_spec(std::string_view text) {
  const SpecParts parts = split_spec(text);
  if (parts.name.empty() && parts.numbers.empty()) return ExactAttention{};
  const SpecForm& form = nearest_form(parts);
  std::vector<double> values;
  for (size_t i = 0; i < form.parameters.size(); ++i) {
    const SpecParameter& parameter = form.parameters[i];
    if (i >= parts.numbers.size() && parameter.optional) break;
    values.push_back(i < parts.numbers.size() ? nearest_number(parameter, parts.numbers[i])
                                              : parameter.example);
  }
  return form.make(values);
}

}  // namespace gqa
