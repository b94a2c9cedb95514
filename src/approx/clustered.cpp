#include "approx/clustered.h"

#include <algorithm>
#include <limits>

#include "approx/companion.h"
#include "approx/pages.h"

namespace gqa {
namespace {

constexpr int64_t page = KvCache::page_size;
static_assert(ClusteredVariant::segment % page == 0, "a segment is whole pages");

}  // namespace

ClusteredVariant::ClusteredVariant(const Clustered& spec, const KvShape& shape)
    : groups_(std::min(spec.groups, segment)), pages_(spec.rescored_pages) {
  if (pages_ > 0) bounds_.emplace(shape, page, BlockSummaries::Kind::bounds);
}

ClusteredVariant::ClusteredVariant(const DynamicGroups& spec, const KvShape&) : loss_(spec.loss) {}

int64_t ClusteredVariant::memory_bytes() const {
  int64_t bytes = bounds_ ? bounds_->memory_bytes() : 0;
  states_.for_each([&](const State& state) {
    for (const HeadGroups& head : state.heads) {
      bytes += head.leaders.memory_bytes() + (std::ssize(head.out) + std::ssize(head.lse)) * 4 +
               std::ssize(head.rescored) * 8;
    }
  });
  return bytes;
}

/// New groups; the weights of dimensions follow from all keys before the segment.
void ClusteredVariant::enter_segment(const Call& call, State& state, int64_t number) {
  const int64_t d = call.head_dim();
  state.segment = number;
  state.heads.resize(static_cast<size_t>(call.kv_heads()));
  for_tokens(call, state.heads.front().moments.count(), number * segment, segment,
             [&](int64_t, int64_t n, const float* k, const float*) {
               call.pool().parallel_for(call.kv_heads(), [&](int64_t g, int) {
                 state.heads[static_cast<size_t>(g)].moments.add(k + g * d, n, call.kv_heads() * d,
                                                                 d);
               });
             });
  for (int64_t g = 0; g < call.kv_heads(); ++g) {
    HeadGroups& head = state.heads[static_cast<size_t>(g)];
    head.leaders = Leaders(call.heads(g) * d);
    head.out.clear();
    head.lse.clear();
    head.rescored.clear();
    head.weight.resize(static_cast<size_t>(d));
    if (number > 0) head.moments.weights(call.scale(), head.weight);
  }
}

bool ClusteredVariant::leads(const Leaders& leaders, const Leaders::Nearest& nearest,
                             int64_t offset, int64_t heads) const {
  if (nearest.leader < 0) return true;
  if (groups_) return offset * *groups_ / segment + 1 > leaders.count();
  return loss_ == 0 || 0.5 * nearest.distance > loss_ * static_cast<double>(heads);
}

/// members [n][kv_heads]
void ClusteredVariant::group(const Call& call, State& state, int64_t t, int64_t n,
                             std::vector<Member>& members) {
  const int64_t d = call.head_dim();
  const int64_t far_pages = state.segment * segment / page;
  call.pool().parallel_for(call.kv_heads(), [&](int64_t g, int thread) {
    HeadGroups& head = state.heads[static_cast<size_t>(g)];
    Work& w = work_[static_cast<size_t>(thread)];
    w.vector.resize(static_cast<size_t>(call.heads(g) * d));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t h = 0; h < call.heads(g); ++h) {
        float* x = w.vector.data() + h * d;
        call.load_query(t + i, call.first_head(g) + h, x);
        for (int64_t j = 0; j < d; ++j) x[j] *= head.weight[static_cast<size_t>(j)];
      }
      const auto nearest = head.leaders.nearest(call.kernels(), w.vector.data());
      Member& member = members[static_cast<size_t>(i * call.kv_heads() + g)];
      member = {nearest.leader, false};
      if (!leads(head.leaders, nearest, call.position(t + i) % segment, call.heads(g))) continue;
      member = {head.leaders.add(w.vector.data()), true};
      if (pages_ > 0) choose_pages(call, state, g, t + i, far_pages, w);
    }
    call.kernels().end_run();
  });
}

/// Adds to `rescored` what the newest leader, token t, leaves to its members.
void ClusteredVariant::choose_pages(const Call& call, State& state, int64_t kv_head, int64_t t,
                                    int64_t far_pages, Work& w) {
  std::vector<uint64_t>& all = state.heads[static_cast<size_t>(kv_head)].rescored;
  all.resize(all.size() + static_cast<size_t>(far_pages), 0);
  uint64_t* words = all.data() + all.size() - static_cast<size_t>(far_pages);
  if (far_pages <= pages_) {
    std::fill_n(words, far_pages, ~uint64_t{0});
    return;
  }
  expand_queries(call, *bounds_, kv_head, t, 1, w.query, w.queries);
  const int64_t heads = call.heads(kv_head);
  w.scores.compute(call.kernels(), *bounds_view_, kv_head, w.queries.data(), heads, call.scale(),
                   far_pages);
  w.value.resize(static_cast<size_t>(far_pages));
  wanted(w.scores, 0, heads, 0, far_pages, w.value.data());
  largest(w.value.data(), far_pages, pages_, w.order);
  for (int64_t c = 0; c < pages_; ++c) words[w.order[static_cast<size_t>(c)]] = ~uint64_t{0};
}

/// What new leaders get from all keys before the segment but those that they leave to members. Each
/// KV head has its own: they stand in the first rows, one behind the other.
void ClusteredVariant::attend_far(const Call& call, State& state, int64_t t, int64_t n,
                                  const std::vector<Member>& members) {
  const int64_t kv_heads = call.kv_heads();
  const int64_t d = call.head_dim();
  std::vector<std::vector<int64_t>> leaders(static_cast<size_t>(kv_heads));
  size_t rows = 0;
  for (int64_t g = 0; g < kv_heads; ++g) {
    auto& of_head = leaders[static_cast<size_t>(g)];
    for (int64_t i = 0; i < n; ++i) {
      if (members[static_cast<size_t>(i * kv_heads + g)].leads) of_head.push_back(t + i);
    }
    rows = std::max(rows, of_head.size());
  }
  if (rows == 0) return;
  const auto n_rows = static_cast<int64_t>(rows);
  const int64_t far_pages = state.segment * segment / page;
  const int64_t row = ceil_div(call.len(), page);
  std::vector<float> queries(rows * static_cast<size_t>(call.q_heads() * d), 0.0f);
  std::vector<uint64_t> words(rows * static_cast<size_t>(kv_heads * row), 0);
  for (int64_t g = 0; g < kv_heads; ++g) {
    const HeadGroups& head = state.heads[static_cast<size_t>(g)];
    const auto& of_head = leaders[static_cast<size_t>(g)];
    const int64_t before = head.leaders.count() - std::ssize(of_head);
    for (int64_t i = 0; i < std::ssize(of_head); ++i) {
      for (int64_t h = call.first_head(g); h < call.first_head(g + 1); ++h) {
        call.load_query(of_head[static_cast<size_t>(i)], h,
                        queries.data() + (i * call.q_heads() + h) * d);
      }
      uint64_t* to = words.data() + (i * kv_heads + g) * row;
      const uint64_t* left = head.rescored.data() + (before + i) * far_pages;
      for (int64_t b = 0; b < far_pages; ++b) to[b] = pages_ > 0 ? ~left[b] : ~uint64_t{0};
    }
  }
  far_.reset(n_rows, call.q_heads(), call.v_head_dim());
  const AttendItem item{.q = {queries.data(), DType::f32, {n_rows, call.q_heads(), d}},
                        .kv = call.kv,
                        .out = far_.out(),
                        .lse = far_.lse(),
                        .q_start = 0,
                        .selected = {words.data(), kv_heads * row, row}};
  gqa::attend(call.context, std::span(&item, 1), call.attend_options({.causal = false}));
  for (int64_t g = 0; g < kv_heads; ++g) {
    HeadGroups& head = state.heads[static_cast<size_t>(g)];
    for (int64_t i = 0; i < std::ssize(leaders[static_cast<size_t>(g)]); ++i) {
      for (int64_t h = call.first_head(g); h < call.first_head(g + 1); ++h) {
        const PartialRow got = far_.row(i, h);
        head.out.insert(head.out.end(), got.out, got.out + call.v_head_dim());
        head.lse.push_back(got.lse);
      }
    }
  }
}

/// A token's own segment, and what its leader left to it.
void ClusteredVariant::attend_near(const Call& call, const State& state, int64_t t, int64_t n,
                                   const std::vector<Member>& members) {
  near_.reset(n, call.q_heads(), call.v_head_dim());
  const int64_t kv_heads = call.kv_heads();
  const int64_t far_pages = state.segment * segment / page;
  const int64_t row = ceil_div(call.len(), page);
  std::vector<uint64_t> words;
  Mask mask{.causal = true, .block = segment};
  KeySelection selected;
  if (pages_ > 0 && far_pages > 0) {
    mask.block = 0;
    words.assign(static_cast<size_t>(n * kv_heads * row), 0);
    for (int64_t i = 0; i < n * kv_heads; ++i) {
      const HeadGroups& head = state.heads[static_cast<size_t>(i % kv_heads)];
      uint64_t* to = words.data() + i * row;
      std::copy_n(head.rescored.data() + members[static_cast<size_t>(i)].leader * far_pages,
                  far_pages, to);
      std::fill(to + far_pages, to + row, ~uint64_t{0});
    }
    selected = {words.data(), kv_heads * row, row};
  }
  AttendItem item = call.tokens(t, n, selected);
  item.out = near_.out();
  item.lse = near_.lse();
  gqa::attend(call.context, std::span(&item, 1), call.attend_options(mask));
}

void ClusteredVariant::put_together(const Call& call, const State& state, int64_t t, int64_t n,
                                    const std::vector<Member>& members) {
  const int64_t dim = call.v_head_dim();
  call.pool().parallel_for(n, [&](int64_t i, int) {
    for (int64_t g = 0; g < call.kv_heads(); ++g) {
      const HeadGroups& head = state.heads[static_cast<size_t>(g)];
      const int64_t first =
          members[static_cast<size_t>(i * call.kv_heads() + g)].leader * call.heads(g);
      for (int64_t h = 0; h < call.heads(g); ++h) {
        PartialRow far{nullptr, -std::numeric_limits<float>::infinity()};
        if (state.segment > 0) {
          far = {head.out.data() + (first + h) * dim, head.lse[static_cast<size_t>(first + h)]};
        }
        const int64_t q_head = call.first_head(g) + h;
        merge_rows(near_.row(i, q_head), far, call.item.out, t + i, q_head);
      }
    }
  });
}

void ClusteredVariant::count(const Call& call, const State& state, int64_t t, int64_t n,
                             const std::vector<Member>& members, Tally& tally) const {
  const int64_t far = state.segment * segment;
  const int64_t rescored = std::min(far, pages_ * page);
  const int64_t bounds = bounds_ && far > rescored ? far / page * bounds_->k_bytes() : 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t position = call.position(t + i);
    for (int64_t g = 0; g < call.kv_heads(); ++g) {
      const bool leads = far > 0 && members[static_cast<size_t>(i * call.kv_heads() + g)].leads;
      tally.add(call, position + 1, position + 1 - far + (leads ? far : rescored),
                leads ? static_cast<double>(bounds) : 0.0);
      if (far > 0 && position % segment == segment - 1) {
        tally.chose(state.heads[static_cast<size_t>(g)].leaders.count());
      }
    }
  }
}

void ClusteredVariant::attend(const Call& call, Tally& tally) {
  work_.resize(static_cast<size_t>(call.pool().n_threads()));
  State& state = states_.of(call);
  // Tokens that are asked for again must not be led by those behind them.
  if (call.position(0) < state.next) state = {};
  state.next = call.len();
  if (bounds_) tally.select([&] { bounds_view_ = bounds_->update(call); });
  std::vector<Member> members;
  for (int64_t t = 0; t < call.q_len();) {
    const int64_t position = call.position(t);
    const int64_t n = std::min(call.q_len() - t, segment - position % segment);
    tally.select([&] {
      if (state.segment != position / segment) enter_segment(call, state, position / segment);
      members.assign(static_cast<size_t>(n * call.kv_heads()), {});
      if (state.segment > 0) group(call, state, t, n, members);
    });
    tally.attend([&] {
      if (state.segment > 0) attend_far(call, state, t, n, members);
      attend_near(call, state, t, n, members);
      put_together(call, state, t, n, members);
    });
    count(call, state, t, n, members, tally);
    t += n;
  }
}

}  // namespace gqa
