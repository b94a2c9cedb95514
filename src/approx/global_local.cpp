#include "approx/global_local.h"

#include <algorithm>
#include <cmath>

#include "approx/selection.h"
#include "attention/visible.h"

namespace gqa {
namespace {

/// Sets the bits of keys [keys.begin, keys.end).
void select(const KeyRange& keys, uint64_t* words) {
  for (int64_t b = keys.begin / 64; b * 64 < keys.end; ++b) {
    words[b] = block_bits({keys, {}}, b * 64);
  }
}

}  // namespace

GlobalLocalVariant::GlobalLocalVariant(const GlobalLocal& spec, const KvShape& shape)
    : window_(spec.window),
      block_(spec.block),
      summaries_(shape, spec.block, BlockSummaries::Kind::means) {}

void GlobalLocalVariant::expand_queries(const Call& call, int64_t t, int64_t n) {
  const int64_t d = call.head_dim();
  const int64_t heads = call.q_heads();
  queries_.resize(static_cast<size_t>(n * heads * d));
  std::vector<float> query(static_cast<size_t>(d));
  for (int64_t r = 0; r < n * heads; ++r) {
    call.load_query(t + r / heads, r % heads, query.data());
    summaries_.expand_query(query, queries_.data() + r * d);
  }
}

void GlobalLocalVariant::attend_near(const Call& call, int64_t t, int64_t n) {
  const int64_t row = ceil_div(call.len(), 64);
  std::vector<uint64_t> words(static_cast<size_t>(n * row), 0);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t position = call.position(t + i);
    select({far_blocks(position) * block_, position + 1}, words.data() + i * row);
  }
  near_.reset(n, call.q_heads(), call.v_head_dim());
  AttendItem item = call.tokens(t, n, {words.data(), row, 0});
  item.out = near_.out();
  item.lse = near_.lse();
  // The selection lies in this window: what is farther is not even looked at.
  const Mask mask{.causal = true, .window = window_ + block_ - 1};
  gqa::attend(call.context, std::span(&item, 1), call.attend_options(mask));
}

void GlobalLocalVariant::attend_far(const Call& call, const PackedKv& summaries, int64_t t,
                                    int64_t n) {
  const int64_t row = ceil_div(summaries.len(), 64);
  std::vector<uint64_t> words(static_cast<size_t>(std::max<int64_t>(1, n * row)), 0);
  for (int64_t i = 0; i < n; ++i) {
    select({0, far_blocks(call.position(t + i))}, words.data() + i * row);
  }
  const float log_block = std::log(static_cast<float>(block_));
  far_.reset(n, call.q_heads(), call.v_head_dim());
  const AttendItem item{.q = {queries_.data(), DType::f32, {n, call.q_heads(), call.head_dim()}},
                        .kv = summaries,
                        .out = far_.out(),
                        .lse = far_.lse(),
                        .q_start = 0,
                        .bias = {&log_block, DType::f32, {1, 1, 1}},
                        .selected = {words.data(), row, 0}};
  AttendOptions options = call.attend_options({.causal = false});
  options.scale = call.scale();
  gqa::attend(call.context, std::span(&item, 1), options);
}

void GlobalLocalVariant::attend(const Call& call, Tally& tally) {
  std::optional<PackedKv> summaries;
  tally.select([&] { summaries = summaries_.update(call); });
  for (int64_t t = 0; t < call.q_len(); t += slice_tokens) {
    const int64_t n = std::min(slice_tokens, call.q_len() - t);
    tally.select([&] { expand_queries(call, t, n); });
    tally.attend([&] {
      attend_near(call, t, n);
      attend_far(call, *summaries, t, n);
      call.pool().parallel_for(n, [&](int64_t i, int) {
        for (int64_t h = 0; h < call.q_heads(); ++h) {
          merge_rows(near_.row(i, h), far_.row(i, h), call.item.out, t + i, h);
        }
      });
    });
    const auto summary_bytes = static_cast<double>(
        summaries_.k_bytes() + kv_vector_bytes(KvDType::f32, call.v_head_dim()));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = call.position(t + i);
      const int64_t far = far_blocks(position);
      for (int64_t g = 0; g < call.kv_heads(); ++g) {
        tally.add(call, position + 1, position + 1 - far * block_,
                  static_cast<double>(far) * summary_bytes);
        tally.chose(far);
      }
    }
  }
}

}  // namespace gqa
