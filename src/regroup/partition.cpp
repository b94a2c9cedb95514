#include "regroup/partition.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "core/random.h"

namespace gqa {
namespace {

using Group = std::vector<int64_t>;

/// Costs that have been asked for.
class Prices {
 public:
  Prices(const GroupCost& cost, const std::function<void()>& interrupt)
      : cost_(cost), interrupt_(interrupt) {}

  double operator()(const Group& group) {
    const auto known = prices_.find(group);
    if (known != prices_.end()) return known->second;
    if (interrupt_) interrupt_();
    return prices_.emplace(group, cost_(group)).first->second;
  }

 private:
  const GroupCost& cost_;
  const std::function<void()>& interrupt_;
  std::map<Group, double> prices_;
};

Group members(uint32_t mask) {
  Group group;
  for (; mask != 0; mask &= mask - 1) group.push_back(std::countr_zero(mask));
  return group;
}

/// Dynamic programming over sets of heads: the best way to part a set takes some group that holds
/// its lowest head, and the best way to part the rest.
class ExactSearch {
 public:
  ExactSearch(const PartitionOptions& options, Prices& prices)
      : options_(options),
        prices_(prices),
        best_(static_cast<size_t>(options.groups) + 1,
              std::vector<Step>(size_t{1} << options.heads)) {}

  HeadGroups run() {
    uint32_t rest = (uint32_t{1} << options_.heads) - 1;
    HeadGroups groups;
    for (int64_t n = options_.groups; n > 0; --n) {
      solve(rest, n);
      const uint32_t group = at(rest, n).group;
      groups.push_back(members(group));
      rest &= ~group;
    }
    return groups;
  }

 private:
  struct Step {
    double cost = -1;  ///< not known yet
    uint32_t group = 0;
  };

  Step& at(uint32_t set, int64_t n) { return best_[static_cast<size_t>(n)][set]; }

  double solve(uint32_t set, int64_t n) {
    constexpr double impossible = std::numeric_limits<double>::infinity();
    if (n == 0) return set == 0 ? 0.0 : impossible;
    if (at(set, n).cost >= 0) return at(set, n).cost;
    Step best{impossible, 0};
    const uint32_t lowest = set & (~set + 1);
    const uint32_t others = set ^ lowest;
    const int wanted = static_cast<int>(options_.heads / options_.groups);
    for (uint32_t more = others;; more = (more - 1) & others) {
      const int size = std::popcount(more) + 1;
      const bool fits = options_.equal ? size == wanted : std::popcount(set) - size >= n - 1;
      if (fits) {
        const double rest = solve(set & ~(more | lowest), n - 1);
        if (rest < best.cost) {
          const double cost = rest + prices_(members(more | lowest));
          if (cost < best.cost) best = {cost, more | lowest};
        }
      }
      if (more == 0) break;
    }
    at(set, n) = best;
    return best.cost;
  }

  const PartitionOptions& options_;
  Prices& prices_;
  std::vector<std::vector<Step>> best_;  ///< [groups][set]
};

/// Swaps of two heads, and moves of one where sizes are free, accepted by Metropolis' rule while it
/// cools down.
class Annealing {
 public:
  Annealing(const PartitionOptions& options, Prices& prices)
      : options_(options), prices_(prices), random_(options.seed, RandomUse::search, 0) {
    for (int64_t h = 0; h < options.heads; ++h) {
      if (h * options.groups / options.heads == std::ssize(groups_)) groups_.emplace_back();
      groups_.back().push_back(h);
    }
    for (const Group& group : groups_) costs_.push_back(prices_(group));
  }

  HeadGroups run() {
    const int64_t steps = 400 * options_.heads;
    double total = 0;
    for (const double c : costs_) total += c;
    double best = total;
    HeadGroups best_groups = groups_;
    const double hot = 0.1 * total / static_cast<double>(options_.groups);
    for (int64_t i = 0; i < steps; ++i) {
      const double left = static_cast<double>(steps - i) / static_cast<double>(steps);
      total += step(hot * left * left);
      if (total < best - 1e-12 * std::abs(best)) {
        best = total;
        best_groups = groups_;
      }
    }
    return best_groups;
  }

 private:
  /// One change, made or not; the cost's change.
  double step(double temperature) {
    const size_t a = random_.below(groups_.size());
    size_t b = random_.below(groups_.size() - 1);
    if (b >= a) ++b;
    Group one = groups_[a];
    Group other = groups_[b];
    const bool move = !options_.equal && one.size() > 1 && random_.below(2) == 0;
    const size_t i = random_.below(one.size());
    if (move) {
      other.push_back(one[i]);
      one.erase(one.begin() + static_cast<int64_t>(i));
    } else {
      std::swap(one[i], other[random_.below(other.size())]);
    }
    std::sort(one.begin(), one.end());
    std::sort(other.begin(), other.end());
    const double price = prices_(one);
    const double other_price = prices_(other);
    const double change = price + other_price - costs_[a] - costs_[b];
    if (change > 0 && !(random_.unit() < std::exp(-change / temperature))) return 0;
    groups_[a] = std::move(one);
    groups_[b] = std::move(other);
    costs_[a] = price;
    costs_[b] = other_price;
    return change;
  }

  const PartitionOptions& options_;
  Prices& prices_;
  Random random_;
  HeadGroups groups_;
  std::vector<double> costs_;
};

}  // namespace

HeadGroups canonical(HeadGroups groups) {
  for (Group& group : groups) std::sort(group.begin(), group.end());
  std::sort(groups.begin(), groups.end());
  return groups;
}

HeadGroups cheapest_partition(const PartitionOptions& options, const GroupCost& cost,
                              const std::function<void()>& interrupt) {
  constexpr int64_t most_equal = 16;
  constexpr int64_t most_unequal = 12;
  Prices prices(cost, interrupt);
  if (options.groups == 1) {
    HeadGroups all(1);
    for (int64_t h = 0; h < options.heads; ++h) all[0].push_back(h);
    return all;
  }
  if (options.groups == options.heads) {
    HeadGroups alone;
    for (int64_t h = 0; h < options.heads; ++h) alone.push_back({h});
    return alone;
  }
  if (options.heads <= (options.equal ? most_equal : most_unequal)) {
    return canonical(ExactSearch(options, prices).run());
  }
  return canonical(Annealing(options, prices).run());
}

}  // namespace gqa
