// clustered and dynamic: what their definitions say, in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "gqa/approx.h"
#include "support/approx_case.h"

namespace gqa {
namespace {

using test::draw;
using test::Heads;
using test::product;
using test::Random;
using test::SoftmaxRows;
using test::Term;
using test::Tokens;

constexpr int64_t segment = 128;
constexpr int64_t page = 64;
const std::vector<Heads> all_heads{{4, 2, {}}, {7, 3, {0, 1, 5, 7}}};

/// What follows for one segment and KV head: each token's leader, and what leaders leave to their
/// members.
struct Groups {
  std::vector<int64_t> leader;                   ///< [tokens of the segment]: a token's position
  std::map<int64_t, std::vector<int64_t>> left;  ///< by leader: pages
  bool clear = true;  ///< no distance and no bound was too close to another to tell
};

/// The definition once more: distances weigh each dimension by scale * the far keys' deviation.
class GroupOracle {
 public:
  GroupOracle(const Tokens& x, const Heads& heads) : x_(x), kv_head_(test::kv_head_of(heads)) {}

  /// paced: leaders for each segment; none: whoever is farther than `loss` leads.
  Groups groups(int64_t begin, int64_t g, std::optional<int64_t> paced, double loss,
                int64_t pages) const {
    Groups result;
    std::vector<int64_t> leaders;
    const std::vector<double> weight = weights(begin, g);
    for (int64_t t = begin; t < std::min(x_.n, begin + segment); ++t) {
      double best = INFINITY, second = INFINITY;
      int64_t nearest = -1;
      for (const int64_t l : leaders) {
        const double d = distance(t, l, g, weight);
        if (d < best) nearest = l;
        second = std::min(second, std::max(d, best));
        best = std::min(best, d);
      }
      const double limit = loss * static_cast<double>(members(g).size());
      const bool due = paced ? (t - begin) * *paced / segment >= std::ssize(leaders)
                             : loss == 0 || best / 2 > limit;
      if (leaders.empty() || due) {
        leaders.push_back(nearest = t);
        if (pages > 0) result.clear &= leave(t, g, begin / page, pages, result.left[t]);
      } else {
        result.clear &= second > 0 && second - best > 1e-4 * (1 + best);
      }
      if (!paced) result.clear &= std::abs(best / 2 - limit) > 1e-4 * (1 + limit) || best > 1e30;
      result.leader.push_back(nearest);
    }
    return result;
  }

 private:
  std::vector<int64_t> members(int64_t g) const {
    std::vector<int64_t> result;
    for (int64_t h = 0; h < x_.q_heads; ++h) {
      if (kv_head_[static_cast<size_t>(h)] == g) result.push_back(h);
    }
    return result;
  }
  std::vector<double> weights(int64_t begin, int64_t g) const {
    std::vector<double> weight;
    for (int64_t d = 0; d < x_.head_dim; ++d) {
      double mean = 0, variance = 0;
      for (int64_t s = 0; s < begin; ++s) mean += x_.key(s, g)[d] / double(begin);
      for (int64_t s = 0; s < begin; ++s) {
        variance += (x_.key(s, g)[d] - mean) * (x_.key(s, g)[d] - mean) / double(begin);
      }
      weight.push_back(x_.scale() * std::sqrt(variance));
    }
    return weight;
  }
  double distance(int64_t a, int64_t b, int64_t g, const std::vector<double>& weight) const {
    double sum = 0;
    for (const int64_t h : members(g)) {
      for (int64_t d = 0; d < x_.head_dim; ++d) {
        const double apart = double{x_.query(a, h)[d]} - double{x_.query(b, h)[d]};
        sum += weight[static_cast<size_t>(d)] * weight[static_cast<size_t>(d)] * apart * apart;
      }
    }
    return sum;
  }
  /// The pages of the highest bounds for any head of leader t.
  bool leave(int64_t t, int64_t g, int64_t far, int64_t pages, std::vector<int64_t>& left) const {
    std::vector<double> value(static_cast<size_t>(far), -INFINITY);
    double slack = 0;
    for (const int64_t h : members(g)) {
      std::vector<double> bound(static_cast<size_t>(far));
      for (int64_t p = 0; p < far; ++p) {
        double size = 0;
        for (int64_t d = 0; d < x_.head_dim; ++d) {
          double most = -INFINITY, largest = 0;
          for (int64_t s = p * page; s < (p + 1) * page; ++s) {
            const double score = x_.scale() * double{x_.query(t, h)[d]} * x_.key(s, g)[d];
            most = std::max(most, score);
            largest = std::max(largest, std::abs(score));
          }
          bound[static_cast<size_t>(p)] += most;
          size += largest;
        }
        slack = std::max(slack, 2 * 1.01 * (1.0 / 128 + 1.0 / 256) * size);
      }
      const double top = *std::max_element(bound.begin(), bound.end());
      for (size_t p = 0; p < bound.size(); ++p) value[p] = std::max(value[p], bound[p] - top);
    }
    left.resize(static_cast<size_t>(far));
    std::iota(left.begin(), left.end(), 0);
    std::sort(left.begin(), left.end(), [&](int64_t a, int64_t b) {
      return value[static_cast<size_t>(a)] > value[static_cast<size_t>(b)];
    });
    if (far <= pages) return true;
    const bool clear = value[static_cast<size_t>(left[static_cast<size_t>(pages - 1)])] >
                       value[static_cast<size_t>(left[static_cast<size_t>(pages)])] + slack;
    left.resize(static_cast<size_t>(pages));
    return clear;
  }

  const Tokens& x_;
  std::vector<int64_t> kv_head_;
};

/// Far keys that the leader did not leave count with its query; the union is one softmax.
reference::Result attention(const Tokens& x, const Heads& heads, const GroupOracle& oracle,
                            std::optional<int64_t> paced, double loss, int64_t pages,
                            std::vector<bool>& clear) {
  const auto kv_head = test::kv_head_of(heads);
  const auto values = test::values_of(x);
  std::map<std::pair<int64_t, int64_t>, Groups> groups;
  for (int64_t begin = segment; begin < x.n; begin += segment) {
    for (int64_t g = 0; g < x.kv_heads; ++g) {
      groups[{begin, g}] = oracle.groups(begin, g, paced, loss, pages);
    }
  }
  SoftmaxRows rows(x.v_head_dim);
  for (int64_t t = 0; t < x.n; ++t) {
    const int64_t far = t / segment * segment;
    for (int64_t h = 0; h < x.q_heads; ++h) {
      const auto g = kv_head[static_cast<size_t>(h)];
      const Groups& of = groups[{far, g}];
      const int64_t leader = far > 0 ? of.leader[static_cast<size_t>(t - far)] : t;
      const std::vector<int64_t> none;
      const auto& left = pages > 0 && far > 0 ? of.left.at(leader) : none;
      std::vector<Term> terms;
      for (int64_t s = 0; s <= t; ++s) {
        const bool own = s >= far || std::count(left.begin(), left.end(), s / page) > 0;
        const auto p = product(x.query(own ? t : leader, h), x.key(s, g), x.head_dim, x.scale());
        terms.push_back(
            {p.score, p.size, 0, values[static_cast<size_t>(s * x.kv_heads + g)].data()});
      }
      rows.add(terms);
      clear.push_back(of.clear);
    }
  }
  return rows.result();
}

/// Compares rows whose groups are clear.
void check(const AttentionSpec& spec, const Tokens& x, const Heads& heads, Context& context) {
  std::optional<int64_t> paced;
  double loss = 0;
  int64_t pages = 0;
  if (const auto* s = std::get_if<Clustered>(&spec)) {
    paced = s->groups;
    pages = s->rescored_pages;
  } else {
    loss = std::get<DynamicGroups>(spec).loss;
  }
  std::vector<bool> clear;
  const GroupOracle oracle(x, heads);
  const reference::Result expected = attention(x, heads, oracle, paced, loss, pages, clear);
  std::vector<float> out = run(context, spec, x, heads);
  for (size_t row = 0; row < clear.size(); ++row) {
    for (int64_t d = 0; !clear[row] && d < x.v_head_dim; ++d) {
      const size_t i = row * static_cast<size_t>(x.v_head_dim) + static_cast<size_t>(d);
      out[i] = static_cast<float>(expected.out[i]);
    }
  }
  EXPECT_GT(std::count(clear.begin(), clear.end(), true), std::ssize(clear) / 2);
  EXPECT_TRUE(test::close(out, x, expected)) << attention_text(spec);
}

TEST(ApproxGroups, MembersUseTheirLeadersFarScores) {
  Context context({.threads = 2});
  Random random(102);
  for (const Heads& heads : all_heads) {
    Tokens x(random, 470, heads, 12, 9);
    // Pages are of very different sizes, so that bounds, which are rounded, can be told apart.
    for (int64_t s = 0; s < x.n; ++s) {
      for (int64_t g = 0; g < x.kv_heads; ++g) {
        for (int64_t d = 0; d < 12; ++d) {
          x.key(s, g)[d] *= std::exp2(static_cast<float>((s / page * 5 + g) % 7) / 2 - 2);
        }
      }
    }
    for (const AttentionSpec& spec : std::vector<AttentionSpec>{
             Clustered{1, 0}, Clustered{5, 0}, Clustered{32, 0}, Clustered{100, 0}, Clustered{4, 1},
             Clustered{20, 3}, DynamicGroups{0.3}, DynamicGroups{1}, DynamicGroups{2.5},
             DynamicGroups{1e9}}) {
      check(spec, x, heads, context);
    }
  }
}

/// Queries that are one of a few vectors of their KV head, each led by a token of the same: then
/// sharing loses nothing.
TEST(ApproxGroups, EqualQueriesShareExactly) {
  Context context({.threads = 2});
  Random random(103);
  for (const Heads& heads : all_heads) {
    const auto kv_head = test::kv_head_of(heads);
    Tokens x(random, 520, heads, 12, 9);
    const std::vector<float> kinds = x.q;
    const int64_t c = 4;
    std::vector<int64_t> kind(static_cast<size_t>(x.kv_heads));
    for (int64_t t = 0; t < x.n; ++t) {
      // Leaders come every segment / c tokens, and are of kinds in turn, which others follow.
      const int64_t seen = t % segment / (segment / c);
      for (int64_t g = 0; g < x.kv_heads; ++g) {
        const bool leads = t % (segment / c) == 0;
        kind[static_cast<size_t>(g)] = ((leads ? seen : draw(random, 0, seen)) + g) % c;
      }
      for (int64_t h = 0; h < x.q_heads; ++h) {
        const int64_t which = kind[static_cast<size_t>(kv_head[static_cast<size_t>(h)])];
        std::copy_n(kinds.data() + (which * x.q_heads + h) * 12, 12, x.query(t, h));
      }
    }
    const auto values = test::values_of(x);
    SoftmaxRows rows(9);
    for (int64_t t = 0; t < x.n; ++t) {
      for (int64_t h = 0; h < x.q_heads; ++h) {
        const auto g = kv_head[static_cast<size_t>(h)];
        std::vector<Term> terms;
        for (int64_t s = 0; s <= t; ++s) {
          const auto p = product(x.query(t, h), x.key(s, g), 12, x.scale());
          terms.push_back(
              {p.score, p.size, 0, values[static_cast<size_t>(s * x.kv_heads + g)].data()});
        }
        rows.add(terms);
      }
    }
    for (const AttentionSpec& spec :
         std::vector<AttentionSpec>{Clustered{c, 0}, Clustered{c, 2}, DynamicGroups{0.01}}) {
      EXPECT_TRUE(test::close(run(context, spec, x, heads), x, rows.result()))
          << attention_text(spec);
    }
  }
}

}  // namespace
}  // namespace gqa
