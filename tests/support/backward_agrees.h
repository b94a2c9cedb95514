// Whether gradients are the oracle's, and nothing else was written.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <optional>
#include <string>

#include "support/backward_bound.h"

namespace gqa::test {

/// What the oracle says of a problem, whose parts it refers to.
class BackwardExpected {
 public:
  const reference::Result forward;
  const reference::Gradients gradients;

  BackwardExpected(const AttendBackwardItem& item, const Sizes& s, const AttendOptions& o)
      : forward(reference::attend(item.forward, o, sees(o.mask, item.forward.prefix))),
        gradients(reference::attend_backward(item, o, sees(o.mask, item.forward.prefix))),
        item_(item),
        s_(s),
        o_(o) {}

  /// rounded: operands are rounded to bf16.
  const BackwardBound& bound(bool rounded) {
    auto& bound = bounds_[rounded ? 1 : 0];
    if (!bound) bound.emplace(item_, s_, o_, forward, gradients, rounded);
    return *bound;
  }

 private:
  const AttendBackwardItem& item_;
  const Sizes& s_;
  const AttendOptions& o_;
  std::array<std::optional<BackwardBound>, 2> bounds_;
};

/// Compares array elements that a call should have written with the oracle's, and memory before and
/// after: what it should not have written.
class Written {
 public:
  std::string wrong;  ///< the first disagreement; empty: none

  template <typename X, typename At>
  void expect(const char* name, const X& x, const At& at, double expected, double bound) {
    if (!wrong.empty()) return;
    const double got = x.get(at);
    const double allowed = bound + rounding(x.dtype, std::abs(expected) + bound);
    if (std::abs(got - expected) <= allowed) return;
    wrong = std::string(name) + "[" + ::testing::PrintToString(at) + "] is " +
            ::testing::PrintToString(got) + ", expected " + ::testing::PrintToString(expected) +
            " within " + ::testing::PrintToString(allowed);
  }

  /// `before` is overwritten with what was to be written.
  template <typename X, typename Visit>
  void expect_no_others(const char* name, const X& x, std::vector<std::byte>& before,
                        Visit&& visit) {
    if (!wrong.empty()) return;
    const int64_t bytes = dtype_bytes(x.dtype);
    visit([&](const auto& at) {
      const int64_t offset = x.offset(at) * bytes;
      std::memcpy(before.data() + offset, x.memory.data() + offset, static_cast<size_t>(bytes));
    });
    if (before != x.memory) wrong = std::string(name) + ": other memory was written";
  }
};

/// Every element of a paged array that belongs to a key, with the key, head and element.
template <typename F>
void visit_keys(const StridedKv& kv, const std::array<int64_t, 4>& shape, F&& f) {
  for (int64_t s = kv.first_key; s < kv.len; ++s) {
    const int64_t logical = s / shape[1];
    const int64_t page = kv.pages.empty() ? logical : kv.pages[static_cast<size_t>(logical)];
    for (int64_t g = 0; g < shape[2]; ++g) {
      for (int64_t d = 0; d < shape[3]; ++d) {
        f(std::array<int64_t, 4>{page, s % shape[1], g, d}, (s * shape[2] + g) * shape[3] + d);
      }
    }
  }
}

/// Memory of all gradients.
struct GradientMemory {
  std::vector<std::byte> dq, dk, dv, dbias;
  explicit GradientMemory(const BackwardProblem& p)
      : dq(p.dq.memory), dk(p.dk.memory), dv(p.dv.memory), dbias(p.dbias.memory) {}
  bool operator==(const GradientMemory&) const = default;
};

inline void compare_rows(Written& w, const char* name, const AnyMutView<3>& wanted,
                         const Array<3>& x, std::vector<std::byte>& before,
                         const std::vector<double>& expected, const std::vector<double>& bound) {
  if (!wanted.data) {
    if (before != x.memory) w.wrong = std::string(name) + " was written but not wanted";
    return;
  }
  size_t i = 0;
  x.visit([&](const auto& at) {
    w.expect(name, x, at, expected[i], bound[i]);
    ++i;
  });
  w.expect_no_others(name, x, before, [&](auto&& f) { x.visit(f); });
}

inline void compare_keys(Written& w, const char* name, const AnyMutView<4>& wanted,
                         const StridedKv& kv, const Array<4>& x, std::vector<std::byte>& before,
                         const std::vector<double>& expected, const std::vector<double>& bound) {
  if (!wanted.data) {
    if (before != x.memory) w.wrong = std::string(name) + " was written but not wanted";
    return;
  }
  visit_keys(kv, x.shape, [&](const auto& at, int64_t i) {
    w.expect(name, x, at, expected[static_cast<size_t>(i)], bound[static_cast<size_t>(i)]);
  });
  w.expect_no_others(name, x, before, [&](auto&& f) {
    visit_keys(kv, x.shape, [&](const auto& at, int64_t) { f(at); });
  });
}

/// Compares every gradient that was wanted with the oracle's, and all other memory of the arrays
/// with what was there before.
inline ::testing::AssertionResult agrees(const BackwardProblem& p, GradientMemory before,
                                         const reference::Gradients& g, const BackwardBound& b) {
  const auto& kv = std::get<StridedKv>(p.item.forward.kv);
  Written w;
  compare_rows(w, "dq", p.item.dq, p.dq, before.dq, g.dq, b.dq);
  compare_keys(w, "dk", p.item.dk, kv, p.dk, before.dk, g.dk, b.dk);
  compare_keys(w, "dv", p.item.dv, kv, p.dv, before.dv, g.dv, b.dv);
  if (p.item.forward.bias.data) {
    compare_rows(w, "dbias", p.item.dbias, p.dbias, before.dbias, g.dbias, b.dbias);
  }
  if (w.wrong.empty()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << w.wrong;
}

/// The same of dsinks, a sum over a batch of so many query tokens.
inline ::testing::AssertionResult agrees(
    const std::vector<float>& dsinks, int64_t tokens,
    const std::vector<std::unique_ptr<BackwardExpected>>& items) {
  for (size_t h = 0; h < dsinks.size(); ++h) {
    double sum = 0, bound = 0;
    for (const auto& item : items) {
      sum += item->gradients.dsinks[h];
      const BackwardBound& b = item->bound(false);  // takes no part in products of bf16
      bound += b.dsinks[h] + static_cast<double>(tokens) * 0x1p-24 * b.dsinks_size[h];
    }
    if (!(std::abs(dsinks[h] - sum) <= bound)) {
      return ::testing::AssertionFailure() << "dsinks[" << h << "] is " << dsinks[h]
                                           << ", expected " << sum << " within " << bound;
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace gqa::test
