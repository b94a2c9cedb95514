// What is kept from call to call, per layer and sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "approx/call.h"

namespace gqa {

/// A T for each layer and sequence, made anew where the sequence has done anything but grow.
template <typename T>
class Kept {
 public:
  template <typename... Args>
  T& of(const Call& call, Args&&... args) {
    const auto layer = static_cast<size_t>(call.layer);
    const auto sequence = static_cast<size_t>(call.item.sequence);
    if (layers_.size() <= layer) layers_.resize(layer + 1);
    if (layers_[layer].size() <= sequence) layers_[layer].resize(sequence + 1);
    Entry& entry = layers_[layer][sequence];
    const uint64_t generation = call.kv.layer().generation;
    if (entry.generation != generation) {
      entry.value = T(std::forward<Args>(args)...);
      entry.generation = generation;
    }
    return entry.value;
  }

  /// f(value) for all.
  template <typename F>
  void for_each(const F& f) const {
    for (const auto& layer : layers_) {
      for (const Entry& entry : layer) f(entry.value);
    }
  }

 private:
  struct Entry {
    uint64_t generation = 0;  ///< no layer has 0
    T value = {};
  };
  std::vector<std::vector<Entry>> layers_;
};

}  // namespace gqa
