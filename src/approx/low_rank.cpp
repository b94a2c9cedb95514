#include "approx/low_rank.h"

#include <algorithm>
#include <limits>

#include "approx/principal.h"
#include "core/fail.h"

namespace gqa {
namespace {

/// Keys that a sequence's own directions are found in.
constexpr int64_t own_keys = 256;

/// out [rank] = the shares of x [dim] in the directions [rank][dim].
void project(const float* directions, int64_t rank, int64_t dim, const float* x, float* out) {
  for (int64_t r = 0; r < rank; ++r) {
    float sum = 0;
    for (int64_t d = 0; d < dim; ++d) sum += directions[r * dim + d] * x[d];
    out[r] = sum;
  }
}

}  // namespace

LowRankVariant::LowRankVariant(const LowRank& spec, const KvShape& shape, KeyDirections directions)
    : rank_(spec.rank),
      head_dim_(shape.head_dim),
      keys_(spec.keys.value_or(std::numeric_limits<int64_t>::max())),
      stored_(std::move(directions)) {
  require(rank_ <= head_dim_,
          "attention: {}: expected a rank of at most {}, the head size; nearest: {}",
          attention_text(spec), head_dim_, attention_text(LowRank{head_dim_, spec.keys}));
  require(stored_.layers.empty() || std::ssize(stored_.layers) == shape.n_layers(),
          "attention: key directions of {} layers, expected {}", stored_.layers.size(),
          shape.n_layers());
  for (size_t i = 0; i < stored_.layers.size(); ++i) {
    const int64_t wanted = shape.kv_heads[i] * head_dim_ * head_dim_;
    require(std::ssize(stored_.layers[i]) == wanted,
            "attention: key directions of layer {} have {} elements, expected {}", i,
            stored_.layers[i].size(), wanted);
  }
  if (!whole()) projected_.emplace(shape, rank_, 1, KvDType::bf16);
}

int64_t LowRankVariant::memory_bytes() const {
  int64_t bytes = projected_ ? projected_->memory_bytes() : 0;
  own_.for_each(
      [&](const auto& x) { bytes += std::ssize(x) * static_cast<int64_t>(sizeof(float)); });
  return bytes;
}

int64_t LowRankVariant::first_choice() const {
  return whole() || !stored_.layers.empty() ? 0 : own_keys;
}

/// Null where they are not known yet; sets step_.
const float* LowRankVariant::directions_of(const Call& call) {
  if (!stored_.layers.empty()) {
    step_ = head_dim_ * head_dim_;
    return stored_.layers[static_cast<size_t>(call.layer)].data();
  }
  step_ = rank_ * head_dim_;
  std::vector<float>& own = own_.of(call);
  if (own.empty() && call.len() >= own_keys) {
    const int64_t heads = call.kv_heads();
    for_tokens(call, 0, own_keys, own_keys, [&](int64_t, int64_t n, const float* k, const float*) {
      for (int64_t g = 0; g < heads; ++g) {
        const auto found =
            principal_directions(k + g * head_dim_, n, heads * head_dim_, head_dim_, rank_);
        own.insert(own.end(), found.begin(), found.end());
      }
    });
  }
  return own.empty() ? nullptr : own.data();
}

void LowRankVariant::project_keys(const Call& call, const float* directions) {
  const int64_t heads = call.kv_heads();
  std::vector<float> keys, values;
  for_tokens(call, projected_->rows(call), call.len(), 1,
             [&](int64_t, int64_t n, const float* k, const float*) {
               keys.resize(static_cast<size_t>(n * heads * rank_));
               values.assign(static_cast<size_t>(n * heads), 0.0f);
               call.pool().parallel_for(n, [&](int64_t s, int) {
                 for (int64_t g = 0; g < heads; ++g) {
                   project(directions + g * step_, rank_, head_dim_,
                           k + (s * heads + g) * head_dim_, keys.data() + (s * heads + g) * rank_);
                 }
               });
               projected_->append(call, n, keys.data(), values.data());
             });
}

void LowRankVariant::prepare(const Call& call) {
  work_.resize(static_cast<size_t>(call.pool().n_threads()));
  view_.reset();
  if (call.len() <= std::max(keys_, first_choice())) return;
  if (whole()) {
    view_ = call.kv;
    return;
  }
  directions_ = directions_of(call);
  project_keys(call, directions_);
  view_ = projected_->view(call);
}

void LowRankVariant::choose(const Call& call, int64_t kv_head, int64_t t, int64_t n, int thread,
                            Selection& selection, int64_t* chosen) {
  const int64_t all_below = std::max(keys_, first_choice());
  const int64_t end = call.position(t + n - 1) + 1;
  const int64_t heads = call.heads(kv_head);
  Work& w = work_[static_cast<size_t>(thread)];
  if (end > all_below) {
    w.query.resize(static_cast<size_t>(head_dim_));
    w.queries.resize(static_cast<size_t>(n * heads * rank_));
    for (int64_t r = 0; r < n * heads; ++r) {
      call.load_query(t + r / heads, call.first_head(kv_head) + r % heads, w.query.data());
      float* query = w.queries.data() + r * rank_;
      if (whole()) {
        std::copy(w.query.begin(), w.query.end(), query);
      } else {
        project(directions_ + kv_head * step_, rank_, head_dim_, w.query.data(), query);
      }
    }
    w.scores.compute(call.kernels(), *view_, kv_head, w.queries.data(), n * heads, call.scale(),
                     end);
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t position = call.position(t + i);
    uint64_t* words = selection.words(t + i, kv_head);
    chosen[i] = std::min(position + 1, position < all_below ? INT64_MAX : keys_);
    if (position < all_below) {
      std::fill_n(words, position / 64 + 1, ~uint64_t{0});
      continue;
    }
    const auto set = [&](int64_t s) { words[s / 64] |= uint64_t{1} << (s % 64); };
    w.value.resize(static_cast<size_t>(position));
    wanted(w.scores, i * heads, heads, 0, position, w.value.data());
    largest(w.value.data(), position, keys_ - 1, w.order);
    for (int64_t c = 0; c < keys_ - 1; ++c) set(w.order[static_cast<size_t>(c)]);
    set(position);
  }
}

double LowRankVariant::choice_bytes(const Call& call, int64_t position) const {
  if (position < std::max(keys_, first_choice())) return 0;
  const int64_t bytes =
      whole() ? kv_vector_bytes(call.kv.layer().dtype, head_dim_) : projected_->k_bytes();
  return static_cast<double>((position + 1) * bytes);
}

}  // namespace gqa
