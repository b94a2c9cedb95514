#include "approx/block_summaries.h"

#include <algorithm>
#include <cmath>

namespace gqa {
namespace {

/// Of bounds, more than a bf16's rounding.
constexpr float outwards = 1.0f / 128;

}  // namespace

BlockSummaries::BlockSummaries(const KvShape& source, int64_t block, Kind kind)
    : kind_(kind),
      block_(block),
      head_dim_(source.head_dim),
      v_head_dim_(source.v_head_dim),
      companion_(source, key_dim(), kind == Kind::bounds ? 1 : source.v_head_dim,
                 kind == Kind::bounds ? KvDType::bf16 : KvDType::f32) {}

PackedKv BlockSummaries::update(const Call& call) {
  const int64_t heads = call.kv_heads();
  const int64_t have = companion_.rows(call);
  const int64_t complete = call.len() / block_;
  const int64_t value_dim = kind_ == Kind::bounds ? 1 : v_head_dim_;
  std::vector<float> keys, values;
  for_tokens(call, have * block_, complete * block_, block_,
             [&](int64_t, int64_t tokens, const float* k, const float* v) {
               const int64_t n = tokens / block_;
               keys.resize(static_cast<size_t>(n * heads * key_dim()));
               values.assign(static_cast<size_t>(n * heads * value_dim), 0.0f);
               call.pool().parallel_for(n * heads, [&](int64_t i, int) {
                 const int64_t first = i / heads * block_ * heads + i % heads;
                 sum_up(k + first * head_dim_, v + first * v_head_dim_, heads,
                        keys.data() + i * key_dim(), values.data() + i * value_dim);
               });
               companion_.append(call, n, keys.data(), values.data());
             });
  return companion_.view(call);
}

/// k, v: of the block's first token and one KV head, of `heads`; value is zeros.
void BlockSummaries::sum_up(const float* k, const float* v, int64_t heads, float* key,
                            float* value) const {
  const auto n = static_cast<float>(block_);
  for (int64_t d = 0; d < head_dim_; ++d) {
    const auto at = [&](int64_t s) { return k[s * heads * head_dim_ + d]; };
    float high = at(0), low = at(0), sum = 0.0f;
    for (int64_t s = 0; s < block_; ++s) {
      high = std::max(high, at(s));
      low = std::min(low, at(s));
      sum += at(s);
    }
    if (kind_ == Kind::bounds) {
      key[d] = high + outwards * std::abs(high);
      key[head_dim_ + d] = low - outwards * std::abs(low);
      continue;
    }
    key[d] = sum / n;
  }
  if (kind_ == Kind::bounds) return;
  for (int64_t s = 0; s < block_; ++s) {
    for (int64_t d = 0; d < v_head_dim_; ++d) value[d] += v[s * heads * v_head_dim_ + d];
  }
  for (int64_t d = 0; d < v_head_dim_; ++d) value[d] /= n;
}

void BlockSummaries::expand_query(std::span<const float> q, float* query) const {
  if (kind_ == Kind::means) {
    std::copy(q.begin(), q.end(), query);
    return;
  }
  for (size_t d = 0; d < q.size(); ++d) {
    query[d] = std::max(q[d], 0.0f);
    query[q.size() + d] = std::min(q[d], 0.0f);
  }
}

}  // namespace gqa
