#include "cli/self_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <functional>
#include <random>

#include "gqa/attention.h"

namespace gqa::cli {
namespace {

// Odd on purpose: groups of 5, a head size that is no multiple of a vector, more than one page.
constexpr int64_t q_len = 3;
constexpr int64_t q_heads = 10;
constexpr int64_t kv_heads = 2;
constexpr int64_t kv_len = 77;
constexpr int64_t head_dim = 20;
constexpr double tolerance = 1e-5;  // of outputs of size 1
// Where queries and weights are rounded to bf16, by at most this share of themselves.
constexpr double bf16_tolerance = 0x1p-8;

struct Problem {
  std::vector<float> q, k, v;  ///< [q_len, q_heads, head_dim], [kv_len, kv_heads, head_dim] twice
};

Problem random_problem() {
  std::mt19937 random(1);
  const auto fill = [&](int64_t n) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& x : values) x = static_cast<float>(random()) * 0x1p-31f - 1.0f;
    return values;
  };
  return {fill(q_len * q_heads * head_dim), fill(kv_len * kv_heads * head_dim),
          fill(kv_len * kv_heads * head_dim)};
}

/// Causal attention of the last q_len tokens, as the formula is written.
std::vector<double> naive_attention(const Problem& p) {
  std::vector<double> out(p.q.size());
  for (int64_t t = 0; t < q_len; ++t) {
    for (int64_t h = 0; h < q_heads; ++h) {
      const float* q = &p.q[(t * q_heads + h) * head_dim];
      double* o = &out[(t * q_heads + h) * head_dim];
      double sum = 0;
      for (int64_t s = 0; s <= kv_len - q_len + t; ++s) {
        const int64_t row = (s * kv_heads + h / (q_heads / kv_heads)) * head_dim;
        double score = 0;
        for (int64_t d = 0; d < head_dim; ++d) score += double{q[d]} * p.k[row + d];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(head_dim)));
        for (int64_t d = 0; d < head_dim; ++d) o[d] += weight * p.v[row + d];
        sum += weight;
      }
      for (int64_t d = 0; d < head_dim; ++d) o[d] /= sum;
    }
  }
  return out;
}

double max_error(Context& context, const Problem& p, const Kv& kv) {
  std::vector<float> out(p.q.size(), NAN);  // what is not written shows
  const std::array<int64_t, 3> shape{q_len, q_heads, head_dim};
  AttendItem item{{p.q.data(), DType::f32, shape}, kv, {out.data(), DType::f32, shape}, {}, {}};
  attend(context, {&item, 1});
  const std::vector<double> expected = naive_attention(p);
  double worst = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double error = std::abs(out[i] - expected[i]);
    if (std::isnan(error)) return error;
    worst = std::max(worst, error);
  }
  return worst;
}

double cached_error(Context& context, Problem p, KvDType dtype) {
  KvCache cache({{kv_heads}, head_dim, head_dim, dtype});
  const std::array<int64_t, 3> shape{kv_len, kv_heads, head_dim};
  const int64_t sequence = cache.create();
  cache.append(context, sequence, 0, {p.k.data(), DType::f32, shape},
               {p.v.data(), DType::f32, shape});
  cache.read(sequence, 0, 0, kv_len, p.k.data(), p.v.data());  // as rounded
  return max_error(context, p, cache.view(sequence, 0));
}

double strided_error(Context& context, const Problem& p) {
  const std::array<int64_t, 4> shape{1, kv_len, kv_heads, head_dim};
  StridedKv kv;
  kv.k = {p.k.data(), DType::f32, shape};
  kv.v = {p.v.data(), DType::f32, shape};
  kv.len = kv_len;
  return max_error(context, p, kv);
}

SelfCheck check(const std::string& isa, std::string cache, double allowed,
                const std::function<double()>& measure) {
  SelfCheck result{isa, std::move(cache), NAN, false, ""};
  try {
    result.max_error = measure();
    result.ok = result.max_error <= allowed;
  } catch (const std::exception& error) {
    result.problem = error.what();
  }
  return result;
}

}  // namespace

std::vector<SelfCheck> run_self_checks(int threads) {
  const Problem problem = random_problem();
  std::vector<SelfCheck> results;
  for (const std::string& isa : available_isas()) {
    Context context({threads, isa});
    for (const KvDType dtype :
         {KvDType::f32, KvDType::f16, KvDType::bf16, KvDType::int8, KvDType::int4}) {
      const bool rounds = isa == "avx512_amx" && dtype == KvDType::bf16;
      results.push_back(check(isa, std::string(kv_dtype_name(dtype)),
                              rounds ? bf16_tolerance : tolerance,
                              [&] { return cached_error(context, problem, dtype); }));
    }
    results.push_back(
        check(isa, "strided f32", tolerance, [&] { return strided_error(context, problem); }));
  }
  return results;
}

}  // namespace gqa::cli
