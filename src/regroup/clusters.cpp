#include "regroup/clusters.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "core/random.h"
#include "regroup/partition.h"

namespace gqa {
namespace {

constexpr int starts = 20;
/// What rounding may make of a change that gains nothing.
constexpr double nothing = 1e-12;

/// Which group each head is in, and what moving heads would gain.
class Clustering {
 public:
  Clustering(const Matrix& similarity, std::vector<int64_t> group_of, int64_t groups)
      : similarity_(similarity),
        group_of_(std::move(group_of)),
        sizes_(Vector::Zero(groups)),
        within_(Vector::Zero(groups)),
        sums_(Matrix::Zero(similarity.rows(), groups)) {
    for (int64_t h = 0; h < heads(); ++h) put(h, group(h));
  }

  int64_t heads() const { return similarity_.rows(); }
  int64_t groups() const { return sizes_.size(); }
  int64_t group(int64_t h) const { return group_of_[static_cast<size_t>(h)]; }
  double total() const { return within_.cwiseQuotient(sizes_).sum(); }
  bool alone(int64_t h) const { return sizes_[group(h)] == 1; }

  /// What the total gains if head h moves to group `to`; h is not alone.
  double gain_of_move(int64_t h, int64_t to) const {
    const int64_t from = group(h);
    const double own = similarity_(h, h);
    return (within_[from] - 2 * sums_(h, from) + own) / (sizes_[from] - 1) +
           (within_[to] + 2 * sums_(h, to) + own) / (sizes_[to] + 1) - mean(from) - mean(to);
  }

  /// What it gains if heads h and i of different groups change places.
  double gain_of_swap(int64_t h, int64_t i) const {
    return gain_of_replacing(h, i) + gain_of_replacing(i, h);
  }

  void move(int64_t h, int64_t to) {
    put(h, group(h), -1);
    put(h, to);
    group_of_[static_cast<size_t>(h)] = to;
  }

  void swap(int64_t h, int64_t i) {
    const int64_t from = group(h);
    move(h, group(i));
    move(i, from);
  }

  HeadGroups result() const {
    HeadGroups result(static_cast<size_t>(groups()));
    for (int64_t h = 0; h < heads(); ++h) result[static_cast<size_t>(group(h))].push_back(h);
    return canonical(std::move(result));
  }

 private:
  double mean(int64_t g) const { return within_[g] / sizes_[g]; }

  /// What the group of `out` gains if `in` takes its place.
  double gain_of_replacing(int64_t out, int64_t in) const {
    const int64_t g = group(out);
    const double out_change = similarity_(out, out) - 2 * sums_(out, g);
    const double in_change = similarity_(in, in) + 2 * (sums_(in, g) - similarity_(in, out));
    return (out_change + in_change) / sizes_[g];
  }

  /// Adds head h to group g, or takes it out.
  void put(int64_t h, int64_t g, double sign = 1) {
    if (sign > 0) within_[g] += 2 * sums_(h, g) + similarity_(h, h);
    if (sign < 0) within_[g] -= 2 * sums_(h, g) - similarity_(h, h);
    sums_.col(g) += sign * similarity_.col(h);
    sizes_[g] += sign;
  }

  const Matrix& similarity_;
  std::vector<int64_t> group_of_;
  Vector sizes_;
  Vector within_;  ///< per group, the sum of its pairs' similarities, both orders and itself
  Matrix sums_;    ///< [heads, groups]: of a head's similarities to a group's members
};

/// Squared distance where the similarity is an inner product.
double distance(const Matrix& similarity, int64_t a, int64_t b) {
  return std::max(similarity(a, a) + similarity(b, b) - 2 * similarity(a, b), 0.0);
}

/// Heads drawn with a chance that grows with the squared distance from those drawn before.
std::vector<int64_t> draw_seeds(const Matrix& similarity, int64_t groups, Random& random) {
  const int64_t n = similarity.rows();
  std::vector<int64_t> seeds;
  Vector far = Vector::Ones(n);  // 0 for a head that is a seed already, or just like one
  std::vector<bool> taken(static_cast<size_t>(n));
  while (std::ssize(seeds) < groups) {
    if (!(far.sum() > 0)) {  // all the rest are just like a seed
      for (int64_t h = 0; h < n; ++h) far[h] = taken[static_cast<size_t>(h)] ? 0.0 : 1.0;
    }
    double left = random.unit() * far.sum();
    int64_t seed = 0;
    for (int64_t h = 0; h < n; ++h) {
      if (!(far[h] > 0)) continue;
      seed = h;
      left -= far[h];
      if (left <= 0) break;
    }
    seeds.push_back(seed);
    taken[static_cast<size_t>(seed)] = true;
    for (int64_t h = 0; h < n; ++h) {
      far[h] = seeds.size() == 1 ? distance(similarity, h, seed)
                                 : std::min(far[h], distance(similarity, h, seed));
    }
  }
  return seeds;
}

/// The seed that head h is most like among those whose group has room, and by how much more than
/// the next.
struct Choice {
  int64_t group = -1;
  double regret = 0;
};

Choice choose(const Matrix& similarity, int64_t h, const std::vector<int64_t>& seeds,
              const std::vector<int64_t>& room) {
  constexpr double none = -std::numeric_limits<double>::infinity();
  Choice choice;
  double best = none;
  double next = none;
  for (size_t g = 0; g < seeds.size(); ++g) {
    if (room[g] == 0) continue;
    const double like = similarity(h, seeds[g]);
    next = std::max(next, std::min(best, like));
    if (like > best) {
      best = like;
      choice.group = static_cast<int64_t>(g);
    }
  }
  choice.regret = best - next;  // infinite where there is one group left
  return choice;
}

/// Every head to a seed, those that would regret waiting most first.
std::vector<int64_t> join_seeds(const Matrix& similarity, const std::vector<int64_t>& seeds,
                                bool equal) {
  const int64_t n = similarity.rows();
  std::vector<int64_t> group_of(static_cast<size_t>(n), -1);
  std::vector<int64_t> room(seeds.size(), equal ? n / std::ssize(seeds) : n);
  const auto join = [&](int64_t h, int64_t g) {
    group_of[static_cast<size_t>(h)] = g;
    --room[static_cast<size_t>(g)];
  };
  for (size_t g = 0; g < seeds.size(); ++g) join(seeds[g], static_cast<int64_t>(g));
  for (int64_t left = n - std::ssize(seeds); left > 0; --left) {
    int64_t head = -1;
    Choice best;
    for (int64_t h = 0; h < n; ++h) {
      if (group_of[static_cast<size_t>(h)] >= 0) continue;
      const Choice choice = choose(similarity, h, seeds, room);
      if (head >= 0 && choice.regret <= best.regret) continue;
      head = h;
      best = choice;
    }
    join(head, best.group);
  }
  return group_of;
}

/// The best change there is; false where none helps.
bool improve(Clustering& clusters, bool moves) {
  const double tolerance = nothing * static_cast<double>(clusters.heads());
  double best = tolerance;
  std::pair<int64_t, int64_t> move{-1, -1};
  std::pair<int64_t, int64_t> swap{-1, -1};
  const auto better = [&](double gain) { return gain > best && (best = gain, true); };
  for (int64_t h = 0; h < clusters.heads(); ++h) {
    for (int64_t i = 0; i < h; ++i) {
      if (clusters.group(h) == clusters.group(i)) continue;
      if (better(clusters.gain_of_swap(h, i))) swap = {h, i};
    }
    if (!moves || clusters.alone(h)) continue;
    for (int64_t g = 0; g < clusters.groups(); ++g) {
      if (g == clusters.group(h) || !better(clusters.gain_of_move(h, g))) continue;
      move = {h, g};
      swap = {-1, -1};
    }
  }
  // A swap that was found after the best move beats it.
  if (swap.first >= 0) {
    clusters.swap(swap.first, swap.second);
  } else if (move.first >= 0) {
    clusters.move(move.first, move.second);
  }
  return best > tolerance;
}

}  // namespace

HeadGroups cluster_heads(const Matrix& similarity, const ClusterOptions& options) {
  Random random(options.seed, RandomUse::clusters, options.layer);
  HeadGroups best;
  double most = -std::numeric_limits<double>::infinity();
  for (int start = 0; start < starts; ++start) {
    const std::vector<int64_t> seeds = draw_seeds(similarity, options.groups, random);
    Clustering clusters(similarity, join_seeds(similarity, seeds, options.equal), options.groups);
    while (improve(clusters, !options.equal)) {
    }
    const double total = clusters.total();
    if (total <= most + nothing * static_cast<double>(similarity.rows())) continue;
    most = total;
    best = clusters.result();
  }
  return best;
}

}  // namespace gqa
