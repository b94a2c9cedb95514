#include "convert/written_layer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "convert/elements.h"
#include "io/json_value.h"

namespace gqa {
namespace {

std::vector<double> values_of(const WrittenTensor& tensor, DType dtype) {
  const std::vector<std::byte> stored = tensor.read();
  std::vector<float> values(stored.size() / static_cast<size_t>(dtype_bytes(dtype)));
  decode_elements(stored.data(), dtype, std::ssize(values), values.data());
  return {values.begin(), values.end()};
}

}  // namespace

void WrittenLayer::add(Part part, DType dtype, WrittenTensor tensor) {
  places_.push_back({part, dtype, std::move(tensor)});
}

bool WrittenLayer::is_whole(bool biased) const {
  const auto has = [&](Part part) { return std::ranges::count(places_, part, &Place::part) == 1; };
  const bool weights =
      has(&MergedLayer::q) && has(&MergedLayer::k) && has(&MergedLayer::v) && has(&MergedLayer::o);
  return weights && (!biased || (has(&MergedLayer::q_bias) && has(&MergedLayer::k_bias) &&
                                 has(&MergedLayer::v_bias)));
}

MergedLayer WrittenLayer::read() const {
  MergedLayer layer;
  for (const Place& place : places_) layer.*place.part = values_of(place.tensor, place.dtype);
  return layer;
}

Json to_note(const LayerRefinement& refined) {
  return {{"error_before", refined.before},
          {"error_after", refined.after},
          {"steps", refined.steps},
          {"kept_after", refined.kept},
          {"diverged", refined.diverged}};
}

std::optional<LayerRefinement> WrittenLayer::refined(int64_t layer) const {
  const auto first = std::ranges::find(places_, &MergedLayer::q, &Place::part);
  if (first == places_.end() || !first->tensor.note || !first->tensor.note->is_object())
    return std::nullopt;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr double not_finite = std::numeric_limits<double>::quiet_NaN();  // which JSON lacks
  constexpr int most = std::numeric_limits<int>::max();
  const JsonFields note(*first->tensor.note, first->tensor.file, "note");
  return LayerRefinement{
      .layer = layer,
      .before = note.maybe_number("error_before", 0, infinity).value_or(not_finite),
      .after = note.maybe_number("error_after", 0, infinity).value_or(not_finite),
      .steps = static_cast<int>(note.integer("steps", 0, most)),
      .kept = static_cast<int>(note.integer("kept_after", 0, most)),
      .diverged = note.boolean("diverged", false),
      .taken_over = true};
}

}  // namespace gqa
