// Parts of approximate attention: merging by LSE, principal directions, tables of what is kept.
#include <gtest/gtest.h>

#include <algorithm>

#include "approx/merge.h"
#include "approx/principal.h"
#include "support/approx_case.h"
#include "support/approx_directions.h"

namespace gqa {
namespace {

using test::draw;
using test::Random;

constexpr float none = -std::numeric_limits<float>::infinity();

// --- merge_rows ---

/// Scores and values of one row in double precision, of which sets get their out and LSE.
struct Row {
  std::vector<double> scores;
  std::vector<std::vector<double>> values;
  int64_t dim;

  struct Part {
    std::vector<float> out;
    float lse;
    PartialRow row() const { return {out.data(), lse}; }
  };
  /// Of the keys whose set this is; out of an empty one is NaN, which must not get through.
  Part part(const std::vector<int64_t>& set_of, int64_t set) const {
    double top = -INFINITY, sum = 0;
    std::vector<double> out(static_cast<size_t>(dim));
    for (size_t s = 0; s < scores.size(); ++s) {
      if (set < 0 || set_of[s] == set) top = std::max(top, scores[s]);
    }
    for (size_t s = 0; s < scores.size(); ++s) {
      if (set >= 0 && set_of[s] != set) continue;
      const double w = std::exp(scores[s] - top);
      sum += w;
      for (size_t d = 0; d < out.size(); ++d) out[d] += w * values[s][d];
    }
    Part result{std::vector<float>(out.size(), std::numeric_limits<float>::quiet_NaN()), none};
    if (sum == 0) return result;
    for (size_t d = 0; d < out.size(); ++d) result.out[d] = static_cast<float>(out[d] / sum);
    result.lse = static_cast<float>(top + std::log(sum));
    return result;
  }
};

TEST(MergeRows, AnySplitOfTheKeysIsOneSoftmax) {
  Random random(111);
  std::normal_distribution<double> normal;
  for (int round = 0; round < test::rounds(4000); ++round) {
    Row row{{}, {}, draw(random, 1, 9)};
    const double offset = test::pick(random, {0.0, 0.0, 80.0, -80.0, 3000.0, -3000.0});
    const double peak = test::pick(random, {0.1, 1.0, 30.0});
    std::vector<int64_t> set_of;
    const int64_t first_share = test::pick<int64_t>(random, {0, 1, 50, 100});  // of 100
    const double apart = test::pick(random, {0.0, 0.0, 5.0, 500.0});
    for (int64_t s = draw(random, 1, 30); s > 0; --s) {
      set_of.push_back(draw(random, 0, 99) < first_share ? 0 : 1);
      row.scores.push_back(offset + peak * normal(random) +
                           apart * static_cast<double>(set_of.back()));
      row.values.emplace_back();
      for (int64_t d = 0; d < row.dim; ++d) row.values.back().push_back(normal(random));
    }
    const auto a = row.part(set_of, 0), b = row.part(set_of, 1), all = row.part(set_of, -1);
    test::Array<3> out(random, DType::f32, {3, 4, row.dim}, draw(random, 0, 1) == 0);
    out.fill([] { return 7.0f; });
    const int64_t t = draw(random, 0, 2), h = draw(random, 0, 3);
    merge_rows(a.row(), b.row(), out.mut(), t, h);
    // An LSE is stored to an epsilon of itself, which is one of its weight.
    double size = 10;
    for (const float lse : {a.lse, b.lse, all.lse}) {
      if (lse != none) size += 2 * std::abs(double{lse});
    }
    out.visit([&](const auto& at) {
      if (at[0] != t || at[1] != h) {
        ASSERT_EQ(out.get(at), 7.0f);
        return;
      }
      const auto d = static_cast<size_t>(at[2]);
      double value = 0;
      for (const auto* part : {&a, &b}) {
        if (part->lse != none) value = std::max(value, std::abs(double{part->out[d]}));
      }
      ASSERT_NEAR(out.get(at), all.out[d], 4 * 0x1p-24 * size * value);
    });
    test::Array<3> swapped = out;
    merge_rows(b.row(), a.row(), swapped.mut(), t, h);
    ASSERT_EQ(out.memory, swapped.memory);
  }
}

TEST(MergeRows, TwoEmptySetsGiveZero) {
  Random random(112);
  const std::vector<float> nan(3, std::numeric_limits<float>::quiet_NaN());
  test::Array<3> out(random, DType::bf16, {1, 1, 3}, true);
  merge_rows({nan.data(), none}, {nullptr, none}, out.mut(), 0, 0);
  out.for_each([](float x) { EXPECT_EQ(x, 0.0f); });
}

TEST(MergeRows, ASetWithoutKeysGivesNothing) {
  Random random(113);
  const std::vector<float> x{1.5f, -2.0f, 0.25f};
  for (const float lse : {0.0f, 3e30f, -3e30f}) {
    test::Array<3> out(random, DType::f16, {1, 1, 3}, true);
    merge_rows({x.data(), lse}, {nullptr, none}, out.mut(), 0, 0);
    for (int64_t d = 0; d < 3; ++d) EXPECT_EQ(out.get({0, 0, d}), x[static_cast<size_t>(d)]);
  }
}

// --- principal_directions ---

double dot(const float* a, const float* b, int64_t dim) {
  return test::product(a, b, dim, 1.0).score;
}

void expect_orthonormal(const std::vector<float>& rows, int64_t dim) {
  const auto rank = std::ssize(rows) / dim;
  for (int64_t a = 0; a < rank; ++a) {
    for (int64_t b = 0; b <= a; ++b) {
      // Each element is rounded to f32 once.
      const double expected = a == b ? 1 : 0;
      EXPECT_NEAR(dot(rows.data() + a * dim, rows.data() + b * dim, dim), expected,
                  2 * static_cast<double>(dim) * 0x1p-24);
    }
  }
}

/// Vectors of known energy in known directions, as exactly as floats are: 2 for each direction, +-.
std::vector<float> vectors(const std::vector<float>& basis, const std::vector<double>& sizes,
                           int64_t dim, int64_t stride) {
  std::vector<float> x(static_cast<size_t>(std::ssize(sizes) * 2 * stride),
                       std::numeric_limits<float>::quiet_NaN());
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (int64_t sign = 0; sign < 2; ++sign) {
      float* to = x.data() + (static_cast<int64_t>(i) * 2 + sign) * stride;
      for (int64_t d = 0; d < dim; ++d) {
        to[d] = static_cast<float>((sign ? -1 : 1) * sizes[i]) *
                basis[i * static_cast<size_t>(dim) + static_cast<size_t>(d)];
      }
    }
  }
  return x;
}

TEST(PrincipalDirections, AreThoseOfMostEnergy) {
  Random random(114);
  for (const int64_t dim : {2, 5, 16, 33}) {
    const auto basis = test::random_directions(random, 1, dim).layers[0];
    // Energies fall by 4 from one to the next: 32 steps leave 4^-32 of what does not belong.
    std::vector<double> sizes(static_cast<size_t>(dim));
    for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = std::exp2(-static_cast<double>(i % 8));
    if (dim > 8) {
      for (size_t i = 8; i < sizes.size(); ++i) sizes[i] = 0x1p-9;
    }
    const auto x = vectors(basis, sizes, dim, dim + 3);
    for (const int64_t rank : {int64_t{1}, int64_t{2}, std::min<int64_t>(dim, 5)}) {
      const auto found = principal_directions(x.data(), 2 * dim, dim + 3, dim, rank);
      ASSERT_EQ(std::ssize(found), rank * dim);
      expect_orthonormal(found, dim);
      for (int64_t r = 0; r < rank; ++r) {
        // Inputs are off by an epsilon of their size, the largest being 4^r times this one's
        // energy.
        EXPECT_NEAR(std::abs(dot(found.data() + r * dim, basis.data() + r * dim, dim)), 1,
                    static_cast<double>(dim) * std::exp2(2.0 * static_cast<double>(r)) * 0x1p-22)
            << "direction " << r << " of " << dim;
      }
    }
  }
}

TEST(PrincipalDirections, EnergyIsNotCentred) {
  // All vectors lie around one point: that is the direction of most energy.
  std::vector<float> x;
  for (int i = 0; i < 50; ++i) {
    x.insert(x.end(), {0.1f * static_cast<float>(i % 5 - 2), 3.0f, 0.0f});
  }
  const auto found = principal_directions(x.data(), 50, 3, 3, 2);
  EXPECT_NEAR(std::abs(found[1]), 1, 1e-6);
  EXPECT_NEAR(std::abs(found[3]), 1, 1e-6);
}

TEST(PrincipalDirections, FewerVectorsThanDirectionsAreCompleted) {
  Random random(115);
  const int64_t dim = 12;
  const auto basis = test::random_directions(random, 1, dim).layers[0];
  for (const std::vector<double>& sizes :
       {std::vector<double>{}, {0.0, 0.0}, {1.0}, {3.0, 1.0}, {1e-18, 1e-19}, {1e15, 1.0}}) {
    const auto x = vectors(basis, sizes, dim, dim);
    const auto found = principal_directions(x.data(), 2 * std::ssize(sizes), dim, dim, dim);
    ASSERT_EQ(std::ssize(found), dim * dim);
    expect_orthonormal(found, dim);
    if (!sizes.empty() && sizes[0] > 0) {
      EXPECT_NEAR(std::abs(dot(found.data(), basis.data(), dim)), 1, 1e-5) << sizes[0];
    }
  }
}

}  // namespace
}  // namespace gqa
