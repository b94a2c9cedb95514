// Random numbers, and arrays with random strides.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/half.h"
#include "gqa/view.h"

namespace gqa::test {

using Random = std::mt19937_64;

inline int64_t draw(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

/// How many rounds a random test makes, if the environment does not ask for more or fewer: in
/// GQA_TEST_CONFIGURATIONS, where 10,000 is as usual.
inline int rounds(int usual) {
  const char* wanted = std::getenv("GQA_TEST_CONFIGURATIONS");
  if (wanted == nullptr) return usual;
  return static_cast<int>(std::max<int64_t>(12, int64_t{usual} * std::atoi(wanted) / 10'000));
}

template <typename T>
T pick(Random& random, std::initializer_list<T> values) {
  return values.begin()[draw(random, 0, static_cast<int64_t>(values.size()) - 1)];
}

/// An array in memory of its own, its axes in a random order with gaps between; the gaps are NaN,
/// so that reading beside an element shows.
template <int N>
struct Array {
  std::vector<std::byte> memory;
  DType dtype = DType::f32;
  std::array<int64_t, N> shape{}, strides{};

  Array() = default;
  Array(Random& random, DType t, const std::array<int64_t, N>& s, bool dense) : dtype(t), shape(s) {
    std::array<int, N> order;
    std::iota(order.begin(), order.end(), 0);
    if (!dense) std::shuffle(order.begin(), order.end(), random);
    int64_t step = 1;
    for (int i = N - 1; i >= 0; --i) {
      const auto axis = static_cast<size_t>(order[static_cast<size_t>(i)]);
      strides[axis] = step;
      step *= std::max<int64_t>(shape[axis], 1);
      if (!dense) step += draw(random, 0, 2);
    }
    memory.resize(static_cast<size_t>(step * dtype_bytes(t)));
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t i = 0; i < step; ++i) store_element(memory.data(), t, i, nan);
  }

  int64_t offset(const std::array<int64_t, N>& at) const {
    int64_t o = 0;
    for (size_t i = 0; i < N; ++i) o += at[i] * strides[i];
    return o;
  }
  float get(const std::array<int64_t, N>& at) const {
    return load_element(memory.data(), dtype, offset(at));
  }
  void set(const std::array<int64_t, N>& at, float x) {
    store_element(memory.data(), dtype, offset(at), x);
  }
  /// All indices, the last axis fastest.
  template <typename F>
  void visit(F&& f) const {
    std::array<int64_t, N> at{};
    if (std::any_of(shape.begin(), shape.end(), [](int64_t n) { return n == 0; })) return;
    while (true) {
      f(at);
      int i = N - 1;
      while (i >= 0 && ++at[static_cast<size_t>(i)] == shape[static_cast<size_t>(i)]) {
        at[static_cast<size_t>(i--)] = 0;
      }
      if (i < 0) return;
    }
  }
  template <typename F>
  void fill(F&& value) {
    visit([&](const auto& at) { set(at, value()); });
  }
  template <typename F>
  void for_each(F&& f) const {
    visit([&](const auto& at) { f(get(at)); });
  }
  AnyView<N> view() const { return {memory.data(), dtype, shape, strides}; }
  AnyMutView<N> mut() { return {memory.data(), dtype, shape, strides}; }
};

}  // namespace gqa::test
