// The backward's oracle against finite differences of the forward's.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "reference/attention_backward.h"
#include "support/backward_case.h"

namespace gqa {
namespace {

using test::Array;
using test::BackwardProblem;
using test::draw;
using test::Random;
using test::Sizes;

/// Central differences over steps of h = 2^-7, h / 2 and h / 4, extrapolated (Richardson): for a
/// smooth loss, differences are f' + c2 h^2 + c4 h^4 + c6 h^6 + ..., and
/// (64 D(h / 4) - 20 D(h / 2) + D(h)) / 45 leaves c6 h^6 / 64, c6 = f^(7) / 7!. An input moves
/// scores by a <= 4 per unit (below: inputs up to 4, scale up to 1), so this is about (2^-7 a)^6 /
/// 64 < 2e-11 of the absolute terms. The losses' own rounding, a few 2^-52 M for a loss whose
/// terms' absolute values sum to M, counts 2 * 2^9 times: below 1e-10 M where scores are below 100.
/// Both together are far below `slack` M.
constexpr double step = 0x1p-7;
constexpr double slack = 4e-9;
constexpr double relative = 1e-5;

/// What inputs are rounded to, so that all steps are exact in f32, and so are values in 16 bits,
/// which have fewer bits and thus multiples of a multiple of it.
float on_grid(float x) { return std::clamp(std::round(x * 128.0f) / 128.0f, -4.0f, 4.0f); }

template <int N>
void round_to_grid(Array<N>& x) {
  x.visit([&](const auto& at) {
    if (std::isfinite(x.get(at))) x.set(at, on_grid(x.get(at)));
  });
}

/// The same numbers in f32, so that they can move by a step.
template <int N>
Array<N> widened(Random& random, const Array<N>& x) {
  Array<N> wide(random, DType::f32, x.shape, true);
  wide.visit([&](const auto& at) { wide.set(at, x.get(at)); });
  return wide;
}

/// A problem, its oracle's gradients, and a copy in f32 whose inputs can be moved.
class Differences {
 public:
  Differences(Random& random, const Sizes& s, const test::Heads& heads) : random_(random) {
    test::fill_backward(random, p_, s);
    test::draw_options(random, heads, s.kv_len, options_);
    for (float& x : options_.sinks) {
      if (std::isfinite(x)) x = on_grid(x);
    }
    auto& f = p_.forward;
    round_to_grid(f.q);
    round_to_grid(f.k);
    round_to_grid(f.v);
    if (f.item.bias.data) round_to_grid(f.bias);
    const auto sees = test::sees(options_.options.mask, f.item.prefix);
    gradients_ = reference::attend_backward(p_.item, options_.options, sees);
    q_ = widened(random, f.q);
    k_ = widened(random, f.k);
    v_ = widened(random, f.v);
    if (f.item.bias.data) bias_ = widened(random, f.bias);
    item_ = f.item;
    item_.q = q_.view();
    if (item_.bias.data) item_.bias = bias_.view();
    auto& kv = std::get<StridedKv>(item_.kv);
    kv.k = k_.view();
    kv.v = v_.view();
    magnitude_ = loss(true);
  }

  std::string describe(const Sizes& s) const { return test::describe(s, options_, item_); }

  /// Some elements of every input.
  void check() {
    check_array("dq", q_, gradients_.dq);
    check_keys("dk", k_, gradients_.dk);
    check_keys("dv", v_, gradients_.dv);
    if (item_.bias.data) check_array("dbias", bias_, gradients_.dbias);
    for (size_t h = 0; h < options_.sinks.size(); ++h) {
      float& sink = options_.sinks[h];
      const float x = sink;
      check_element("dsinks", x, gradients_.dsinks[h], [&](float y) { sink = y; });
    }
  }

  int64_t compared = 0, not_zero = 0;

 private:
  /// Or, of absolute values, what its terms sum to.
  double loss(bool absolute) const {
    const auto sees = test::sees(options_.options.mask, item_.prefix);
    const auto result = reference::attend(item_, options_.options, sees);
    double sum = 0;
    size_t i = 0;
    p_.d_out.for_each([&](float weight) {
      sum += absolute ? std::abs(weight) * result.value_size[i] : weight * result.out[i];
      ++i;
    });
    return sum;
  }

  void check_element(const char* name, float x, double gradient,
                     const std::function<void(float)>& set) {
    if (!std::isfinite(x)) {
      EXPECT_EQ(gradient, 0) << name;
      return;
    }
    const auto difference = [&](double h) {
      const auto at = [&](double y) {
        const auto moved = static_cast<float>(y);
        EXPECT_EQ(moved, y);
        set(moved);
        return loss(false);
      };
      return (at(x + h) - at(x - h)) / (2 * h);
    };
    const double found =
        (64 * difference(step / 4) - 20 * difference(step / 2) + difference(step)) / 45;
    set(x);
    EXPECT_LE(std::abs(gradient - found), relative * std::abs(gradient) + slack * magnitude_)
        << name << " is " << gradient << ", differences give " << found << ", terms sum to "
        << magnitude_;
    ++compared;
    if (std::abs(gradient) > 1e4 * slack * magnitude_) ++not_zero;
  }

  void check_array(const char* name, Array<3>& x, const std::vector<double>& gradient) {
    for (int n = 0; n < 6 && !gradient.empty(); ++n) {
      const int64_t i = draw(random_, 0, std::ssize(gradient) - 1);
      const int64_t row = i / x.shape[2];
      const std::array<int64_t, 3> at{row / x.shape[1], row % x.shape[1], i % x.shape[2]};
      check_element(name, x.get(at), gradient[static_cast<size_t>(i)],
                    [&](float y) { x.set(at, y); });
    }
  }

  void check_keys(const char* name, Array<4>& x, const std::vector<double>& gradient) {
    const auto& kv = std::get<StridedKv>(item_.kv);
    for (int n = 0; n < 6 && kv.first_key < kv.len; ++n) {
      const int64_t key = draw(random_, kv.first_key, kv.len - 1);
      const int64_t g = draw(random_, 0, x.shape[2] - 1);
      const int64_t d = draw(random_, 0, x.shape[3] - 1);
      const int64_t logical = key / x.shape[1];
      const int64_t page = kv.pages.empty() ? logical : kv.pages[static_cast<size_t>(logical)];
      const std::array<int64_t, 4> at{page, key % x.shape[1], g, d};
      const int64_t i = (key * x.shape[2] + g) * x.shape[3] + d;
      check_element(name, x.get(at), gradient[static_cast<size_t>(i)],
                    [&](float y) { x.set(at, y); });
    }
  }

  Random& random_;
  BackwardProblem p_;
  test::Options options_;
  reference::Gradients gradients_;
  Array<3> q_, bias_;
  Array<4> k_, v_;
  AttendItem item_;
  double magnitude_ = 0;
};

TEST(BackwardOracle, EqualsFiniteDifferencesOfTheForward) {
  Random random(20241123);
  int64_t compared = 0, not_zero = 0;
  for (int round = 0; round < test::rounds(3'000); ++round) {
    const test::Heads heads = test::draw_heads(random);
    const Sizes s{.q_len = draw(random, 1, 4),
                  .q_heads = heads.q_heads,
                  .kv_heads = heads.kv_heads,
                  .head_dim = draw(random, 1, 6),
                  .v_head_dim = draw(random, 1, 6),
                  .kv_len = draw(random, 0, 9)};
    Differences differences(random, s, heads);
    differences.check();
    ASSERT_FALSE(HasFailure()) << "configuration " << round << ": " << differences.describe(s);
    compared += differences.compared;
    not_zero += differences.not_zero;
  }
  EXPECT_GT(not_zero, compared / 4);  // masks hide many, most do not
}

}  // namespace
}  // namespace gqa
