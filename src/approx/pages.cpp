#include "approx/pages.h"

#include <algorithm>
#include <cmath>

namespace gqa {
namespace {

constexpr int64_t page = KvCache::page_size;
constexpr uint64_t whole = ~uint64_t{0};

/// Of pages [0, n), n - 1 being the token's own, these are not a matter of choice: the first, and
/// the last two.
KeyRange candidates(int64_t n) { return {std::min<int64_t>(1, n), std::max<int64_t>(1, n - 2)}; }

void choose_fixed(int64_t n, uint64_t* words) {
  words[0] = whole;
  words[std::max<int64_t>(0, n - 2)] = whole;
  words[n - 1] = whole;
}

/// Pages that a token at a position sees, its own included.
int64_t pages_seen(int64_t position) { return position / page + 1; }

/// Summaries that were read for a token at this position.
double summary_bytes(const BlockSummaries& summaries, int64_t position) {
  return static_cast<double>((pages_seen(position) - 1) * summaries.k_bytes());
}

}  // namespace

void expand_queries(const Call& call, const BlockSummaries& summaries, int64_t kv_head, int64_t t,
                    int64_t n, std::vector<float>& query, std::vector<float>& queries) {
  const int64_t d = call.head_dim();
  const int64_t heads = call.heads(kv_head);
  query.resize(static_cast<size_t>(d));
  queries.resize(static_cast<size_t>(n * heads * summaries.key_dim()));
  for (int64_t r = 0; r < n * heads; ++r) {
    call.load_query(t + r / heads, call.first_head(kv_head) + r % heads, query.data());
    summaries.expand_query(query, queries.data() + r * summaries.key_dim());
  }
}

TopPagesVariant::TopPagesVariant(const TopPages& spec, const KvShape& shape)
    : pages_(std::max<int64_t>(3, spec.pages)),
      summaries_(shape, page, BlockSummaries::Kind::bounds) {}

void TopPagesVariant::prepare(const Call& call) {
  work_.resize(static_cast<size_t>(call.pool().n_threads()));
  view_ = summaries_.update(call);
}

void TopPagesVariant::choose(const Call& call, int64_t kv_head, int64_t t, int64_t n, int thread,
                             Selection& selection, int64_t* chosen) {
  const int64_t last = pages_seen(call.position(t + n - 1));
  Work& w = work_[static_cast<size_t>(thread)];
  const int64_t heads = call.heads(kv_head);
  if (last > pages_) {
    expand_queries(call, summaries_, kv_head, t, n, w.query, w.queries);
    w.scores.compute(call.kernels(), *view_, kv_head, w.queries.data(), n * heads, call.scale(),
                     last - 1);
  }
  for (int64_t i = 0; i < n; ++i) {
    uint64_t* words = selection.words(t + i, kv_head);
    const int64_t pages = pages_seen(call.position(t + i));
    chosen[i] = std::min(pages, pages_);
    if (pages <= pages_) {
      std::fill_n(words, pages, whole);
      continue;
    }
    choose_fixed(pages, words);
    const KeyRange free = candidates(pages);
    w.value.resize(static_cast<size_t>(free.end - free.begin));
    wanted(w.scores, i * heads, heads, free.begin, free.end, w.value.data());
    const int64_t count = pages_ - 3;
    largest(w.value.data(), free.end - free.begin, count, w.order);
    for (int64_t c = 0; c < count; ++c) words[free.begin + w.order[static_cast<size_t>(c)]] = whole;
  }
}

double TopPagesVariant::choice_bytes(const Call&, int64_t position) const {
  return pages_seen(position) > pages_ ? summary_bytes(summaries_, position) : 0.0;
}

TopMassVariant::TopMassVariant(const TopMass& spec, const KvShape& shape)
    : mass_(spec.mass), summaries_(shape, page, BlockSummaries::Kind::means) {}

void TopMassVariant::prepare(const Call& call) {
  work_.resize(static_cast<size_t>(call.pool().n_threads()));
  if (mass_ < 1) view_ = summaries_.update(call);
}

double TopMassVariant::choice_bytes(const Call&, int64_t position) const {
  return pages_seen(position) > 3 && mass_ < 1 ? summary_bytes(summaries_, position) : 0.0;
}

void TopMassVariant::choose(const Call& call, int64_t kv_head, int64_t t, int64_t n, int thread,
                            Selection& selection, int64_t* chosen) {
  const int64_t last = pages_seen(call.position(t + n - 1));
  Work& w = work_[static_cast<size_t>(thread)];
  const int64_t heads = call.heads(kv_head);
  const int64_t d = call.head_dim();
  const bool all = mass_ >= 1 || last <= 3;
  if (!all) {
    expand_queries(call, summaries_, kv_head, t, n, w.query, w.queries);
    w.scores.compute(call.kernels(), *view_, kv_head, w.queries.data(), n * heads, call.scale(),
                     last - 1);
  }
  for (int64_t i = 0; i < n; ++i) {
    uint64_t* words = selection.words(t + i, kv_head);
    const int64_t position = call.position(t + i);
    const int64_t pages = pages_seen(position);
    if (all || pages <= 3) {
      std::fill_n(words, pages, whole);
      chosen[i] = pages;
      continue;
    }
    // What the token's own page holds is the one thing that no summary says.
    w.last.resize(static_cast<size_t>(heads));
    w.value.resize(static_cast<size_t>(d));
    const int64_t begin = position / page * page;
    for (int64_t h = 0; h < heads; ++h) {
      call.load_query(t + i, call.first_head(kv_head) + h, w.value.data());
      w.own.compute(call.kernels(), call.kv, kv_head, w.value.data(), 1, call.scale(), begin,
                    position + 1);
      const float* scores = w.own.row(0);
      const int64_t count = position + 1 - begin;
      const float top = *std::max_element(scores, scores + count);
      float sum = 0;
      for (int64_t s = 0; s < count; ++s) sum += std::exp(scores[s] - top);
      w.last[static_cast<size_t>(h)] = top + std::log(sum);
    }
    chosen[i] = choose_one(heads, i * heads, pages, w, words);
  }
}

/// Chooses among `pages` pages for the scores from `row` on; returns how many.
int64_t TopMassVariant::choose_one(int64_t heads, int64_t row, int64_t pages, Work& w,
                                   uint64_t* words) const {
  const auto at = [&](int64_t h, int64_t p) -> double& {
    return w.share[static_cast<size_t>(h * pages + p)];
  };
  const double log_page = std::log(static_cast<double>(page));
  w.share.resize(static_cast<size_t>(heads * pages));
  w.value.assign(static_cast<size_t>(pages), 0.0f);
  for (int64_t h = 0; h < heads; ++h) {
    const float* estimate = w.scores.row(row + h);
    double top = w.last[static_cast<size_t>(h)];
    for (int64_t p = 0; p < pages - 1; ++p) {
      at(h, p) = static_cast<double>(estimate[p]) + log_page;
      top = std::max(top, at(h, p));
    }
    at(h, pages - 1) = w.last[static_cast<size_t>(h)];
    double sum = 0;
    for (int64_t p = 0; p < pages; ++p) sum += at(h, p) = std::exp(at(h, p) - top);
    for (int64_t p = 0; p < pages; ++p) {
      at(h, p) /= sum;
      const auto share = static_cast<float>(at(h, p));
      w.value[static_cast<size_t>(p)] = std::max(w.value[static_cast<size_t>(p)], share);
    }
  }
  choose_fixed(pages, words);
  const KeyRange free = candidates(pages);
  const auto value = [&](int32_t c) { return w.value[static_cast<size_t>(free.begin + c)]; };
  largest(w.value.data(), free.end - free.begin, free.end - free.begin, w.order);
  std::sort(w.order.begin(), w.order.end(), [&](int32_t a, int32_t b) {
    return value(a) > value(b) || (value(a) == value(b) && a < b);
  });
  std::vector<double> held(static_cast<size_t>(heads));
  for (int64_t h = 0; h < heads; ++h) {
    held[static_cast<size_t>(h)] = at(h, 0) + at(h, pages - 2) + at(h, pages - 1);
  }
  int64_t count = 3;
  for (const int32_t c : w.order) {
    if (*std::min_element(held.begin(), held.end()) >= mass_) break;
    words[free.begin + c] = whole;
    ++count;
    for (int64_t h = 0; h < heads; ++h) held[static_cast<size_t>(h)] += at(h, free.begin + c);
  }
  return count;
}

}  // namespace gqa
