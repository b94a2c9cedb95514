#include "convert/merge.h"

#include <algorithm>
#include <array>
#include <limits>

#include "convert/elements.h"
#include "convert/merge_matrices.h"
#include "convert/similarity.h"
#include "core/fail.h"
#include "core/random.h"

namespace gqa {
namespace {

/// Applies `merge_one(tensor) -> values` to each of the layer's tensors.
template <typename MergeOne>
MergedLayer merge_each(const MergeInput& in, MergeOne merge_one) {
  MergedLayer merged;
  merged.k = merge_one(*in.tensors.k);
  merged.v = merge_one(*in.tensors.v);
  if (in.tensors.k_bias != nullptr) merged.k_bias = merge_one(*in.tensors.k_bias);
  if (in.tensors.v_bias != nullptr) merged.v_bias = merge_one(*in.tensors.v_bias);
  return merged;
}

/// Elements that belong to one KV head.
int64_t head_elements(const MergeInput& in, const Tensor& tensor) {
  return tensor.elements / in.config.kv_heads[in.layer];
}

/// out[i] = the mean of element i over the heads. Starts from the first head, not from zero: a mean
/// of equal elements is then that element to the bit, even -0.
void average_heads(const Tensor& tensor, std::span<const int64_t> heads, int64_t n, double* out) {
  constexpr int64_t block = 2048;
  std::array<float, block> values;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t count = std::min(block, n - begin);
    for (size_t m = 0; m < heads.size(); ++m) {
      const int64_t element = heads[m] * n + begin;
      decode_elements(tensor.data + element * dtype_bytes(*tensor.dtype), *tensor.dtype, count,
                      values.data());
      if (m == 0) {
        std::copy_n(values.begin(), count, out + begin);
      } else {
        for (int64_t i = 0; i < count; ++i) out[begin + i] += static_cast<double>(values[i]);
      }
    }
    for (int64_t i = 0; i < count; ++i) out[begin + i] /= static_cast<double>(heads.size());
  }
}

std::vector<double> average(const MergeInput& in, const Tensor& tensor, size_t members) {
  const int64_t n = head_elements(in, tensor);
  std::vector<double> merged(in.groups.size() * n);
  for (size_t g = 0; g < in.groups.size(); ++g) {
    const auto heads = std::span(in.groups[g]).first(std::min(members, in.groups[g].size()));
    average_heads(tensor, heads, n, merged.data() + g * n);
  }
  return merged;
}

/// Mean pooling (Ainslie et al. 2023).
MergedLayer merge_mean(const MergeInput& in) {
  return merge_each(in, [&](const Tensor& t) { return average(in, t, SIZE_MAX); });
}

MergedLayer merge_first(const MergeInput& in) {
  return merge_each(in, [&](const Tensor& t) { return average(in, t, 1); });
}

/// Each group's member with the least sum of squared distances to the others, keys and values
/// together, each relative to the layer's; the first of equals.
MergedLayer merge_medoid(const MergeInput& in) {
  const int64_t n = in.config.kv_heads[static_cast<size_t>(in.layer)];
  const std::vector<double> keys = head_gram(*in.tensors.k, n);
  const std::vector<double> values = head_gram(*in.tensors.v, n);
  const auto distance = [&](const std::vector<double>& gram, int64_t a, int64_t b) {
    double all = 0;
    for (int64_t h = 0; h < n; ++h) all += gram[h * n + h];
    const double cross = gram[std::min(a, b) * n + std::max(a, b)];
    return all > 0 ? (gram[a * n + a] + gram[b * n + b] - 2 * cross) / all : 0.0;
  };
  HeadGroups chosen;
  for (const auto& group : in.groups) {
    double least = std::numeric_limits<double>::infinity();
    int64_t medoid = group.front();
    for (const int64_t a : group) {
      double sum = 0;
      for (const int64_t b : group) sum += distance(keys, a, b) + distance(values, a, b);
      if (sum >= least) continue;
      least = sum;
      medoid = a;
    }
    chosen.push_back({medoid});
  }
  const MergeInput one{in.config, in.layer, chosen, in.seed, in.tensors, in.norm};
  return merge_first(one);
}

/// The heads are thrown away, new ones drawn as for training from scratch.
MergedLayer merge_random(const MergeInput& in) {
  Random random(in.seed, RandomUse::merge, in.layer);
  return merge_each(in, [&](const Tensor& tensor) {
    std::vector<double> drawn(in.groups.size() * head_elements(in, tensor));
    const bool is_bias = tensor.shape.size() == 1;
    if (is_bias) return drawn;
    for (double& x : drawn) x = in.config.initializer_range * random.normal();
    return drawn;
  });
}

constexpr MergeMethod methods[] = {
    {"mean", "the mean of its group", true, merge_mean},
    {"first", "the first of its group", true, merge_first},
    {"random", "drawn at random, to be trained", true, merge_random},
    {"medoid", "the head of its group that is closest to the others", true, merge_medoid},
    {"aligned", "the mean of its group, whose members were turned towards each other first", false,
     merge_aligned},
    {"pca", "the principal head of its group: the one that keeps most of what its members do",
     false, merge_principal},
};

}  // namespace

std::span<const MergeMethod> merge_methods() { return methods; }

const MergeMethod& find_merge(std::string_view name) {
  for (const MergeMethod& method : methods) {
    if (method.name == name) return method;
  }
  std::vector<std::string_view> names;
  for (const MergeMethod& method : methods) names.push_back(method.name);
  fail(ErrorKind::usage, "merge `{}` is not known; choices: {}", name, fmt::join(names, ", "));
}

}  // namespace gqa
