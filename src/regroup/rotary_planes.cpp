#include "regroup/rotary_planes.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/checked.h"

namespace gqa {
namespace {

/// Tokens whose outputs are compared take at most this memory.
constexpr int64_t most_elements = int64_t{1} << 26;

double cost_of(const Matrix& costs, const std::vector<int64_t>& gone) {
  double sum = 0;
  for (const int64_t a : gone) {
    for (const int64_t b : gone) sum += costs(a, b);
  }
  return sum;
}

/// Which planes stay and which go.
struct Choice {
  std::vector<int64_t> kept;
  std::vector<int64_t> gone;
  double cost = 0;
};

Choice exchanged(const Matrix& costs, Choice choice, size_t kept, size_t gone) {
  std::swap(choice.kept[kept], choice.gone[gone]);
  choice.cost = cost_of(costs, choice.gone);
  return choice;
}

/// All that one exchange makes of a choice, the cheapest first.
std::vector<Choice> exchanges(const Matrix& costs, const Choice& choice) {
  std::vector<Choice> all;
  for (size_t a = 0; a < choice.kept.size(); ++a) {
    for (size_t b = 0; b < choice.gone.size(); ++b) {
      all.push_back(exchanged(costs, choice, a, b));
    }
  }
  std::ranges::stable_sort(all, {}, &Choice::cost);
  return all;
}

/// Planes go one after the other, each the one that adds least.
Choice greedy(const Matrix& costs, int64_t keep) {
  Choice choice;
  for (int64_t p = 0; p < costs.rows(); ++p) choice.kept.push_back(p);
  while (std::ssize(choice.kept) > keep) {
    const auto added = [&](int64_t p) {
      double cost = costs(p, p);
      for (const int64_t other : choice.gone) cost += 2 * costs(p, other);
      return cost;
    };
    const auto least = std::ranges::min_element(choice.kept, {}, added);
    choice.gone.push_back(*least);
    choice.kept.erase(least);
  }
  choice.cost = cost_of(costs, choice.gone);
  return choice;
}

/// The weights of the queries of one plane.
BlockWeights queries_of_plane(const BlockShape& shape, const BlockWeights& weights, int64_t plane) {
  BlockWeights part = BlockWeights::zeros_like(weights);
  for (int64_t h = 0; h < shape.q_heads(); ++h) {
    for (const int64_t i : {plane, plane + shape.head_dim / 2}) {
      part.q.row(h * shape.head_dim + i) = weights.q.row(h * shape.head_dim + i);
    }
  }
  return part;
}

}  // namespace

Matrix plane_effects(const BlockShape& shape, const BlockAttention& block, const Heads& heads) {
  const int64_t half = shape.head_dim / 2;
  const int64_t tokens = shape.window_begin.back();
  const int64_t width = heads.o.rows();
  const int64_t most = std::max<int64_t>(most_elements / (half * width), 1);
  const int64_t stride = ceil_div(tokens, most);
  const BlockWeights weights = block_weights(heads);
  std::vector<Matrix> effects;
  for (int64_t p = 0; p < half; ++p) {
    const Rows effect = block.tangent(queries_of_plane(shape, weights, p));
    Matrix& some = effects.emplace_back(ceil_div(tokens, stride), width);
    for (int64_t r = 0; r < some.rows(); ++r) some.row(r) = effect.row(r * stride).cast<double>();
  }
  Matrix costs(half, half);
  for (int64_t a = 0; a < half; ++a) {
    for (int64_t b = 0; b <= a; ++b) {
      costs(a, b) =
          effects[static_cast<size_t>(a)].cwiseProduct(effects[static_cast<size_t>(b)]).sum();
      costs(b, a) = costs(a, b);
    }
  }
  return costs;
}

Matrix plane_energies(const HeadGrams& grams) {
  const int64_t half = grams.head_dim / 2;
  Matrix energies = Matrix::Zero(half, half);
  for (int64_t p = 0; p < half; ++p) {
    for (int64_t g = 0; g < grams.kv_heads(); ++g) {
      const double queries = grams.query_weight(p, g);
      energies(p, p) += queries * queries * grams.keys[static_cast<size_t>(p)](g, g).real();
    }
  }
  return energies;
}

std::vector<std::vector<int64_t>> choose_planes(const Matrix& costs, int64_t keep,
                                                int64_t candidates) {
  Choice best = greedy(costs, keep);
  std::vector<Choice> others = exchanges(costs, best);
  // By more than rounding, so that this ends.
  while (!others.empty() && others.front().cost < best.cost - 1e-9 * std::abs(best.cost)) {
    best = others.front();
    others = exchanges(costs, best);
  }
  others.insert(others.begin(), std::move(best));
  others.resize(std::min(others.size(), static_cast<size_t>(candidates)));
  std::vector<std::vector<int64_t>> result;
  for (Choice& choice : others) {
    std::ranges::sort(choice.kept);
    result.push_back(std::move(choice.kept));
  }
  return result;
}

Heads with_planes(const Heads& heads, const std::vector<int64_t>& planes) {
  const int64_t half = std::ssize(planes);
  Heads result;
  result.head_dim = 2 * half;
  result.q_begin = heads.q_begin;
  result.planes = planes;
  const auto keep = [&](const Matrix& from, int64_t n_heads) {
    Matrix to(n_heads * result.head_dim, from.cols());
    for (int64_t h = 0; h < n_heads; ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const int64_t row = h * heads.head_dim + planes[static_cast<size_t>(i)];
        to.row(h * result.head_dim + i) = from.row(row);
        to.row(h * result.head_dim + half + i) = from.row(row + heads.head_dim / 2);
      }
    }
    return to;
  };
  const double scale =
      std::sqrt(static_cast<double>(result.head_dim) / static_cast<double>(heads.head_dim));
  result.q = scale * keep(heads.q, heads.q_heads());
  result.k = keep(heads.k, heads.kv_heads());
  result.v.setZero(heads.kv_heads() * result.head_dim, heads.inputs());
  result.o.setZero(heads.o.rows(), heads.q_heads() * result.head_dim);
  return result;
}

}  // namespace gqa
