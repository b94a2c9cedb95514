#include "io/group_sizes.h"

#include <algorithm>
#include <numeric>

#include "core/fail.h"
#include "io/json_value.h"
#include "io/per_layer_form.h"

namespace gqa {
namespace {

bool all_equal(const std::vector<int64_t>& values) {
  return std::ranges::count(values, values.front()) == std::ssize(values);
}

/// `where`: "FILE: field `gqa_group_sizes[3]`".
void check_sizes(const std::string& where, const std::vector<int64_t>& sizes, int64_t kv_heads,
                 int64_t q_heads) {
  if (std::ssize(sizes) != kv_heads) {
    fail(ErrorKind::bad_data,
         "{}: expected an entry for each of the layer's {} KV heads (num_key_value_heads), got {} "
         "entries",
         where, kv_heads, sizes.size());
  }
  int64_t sum = 0;  // every size is at most q_heads, and they are as many as KV heads: below 2^62
  for (const int64_t size : sizes) sum += size;
  if (sum != q_heads) {
    fail(ErrorKind::bad_data, "{}: expected a sum of {} (num_attention_heads), got {}", where,
         q_heads, sum);
  }
}

}  // namespace

std::vector<std::vector<int64_t>> read_group_sizes(const JsonFields& config, const ModelConfig& c) {
  auto sizes = config.integer_lists(group_sizes_key, 1, c.q_heads);
  if (!sizes.empty() && std::ssize(sizes) != c.n_layers) {
    fail(ErrorKind::bad_data, "{}: expected an entry for each of {} layers, got {} entries",
         config.where(group_sizes_key), c.n_layers, sizes.size());
  }
  for (size_t l = 0; l < c.kv_heads.size(); ++l) {
    const int64_t kv_heads = c.kv_heads[l];
    if (!sizes.empty() && !sizes[l].empty()) {
      const std::string where = config.where(fmt::format("{}[{}]", group_sizes_key, l));
      check_sizes(where, sizes[l], kv_heads, c.q_heads);
    } else if (c.q_heads % kv_heads != 0) {
      fail(ErrorKind::bad_data, "{}: expected a divisor of num_attention_heads ({}), got {}",
           config.where("num_key_value_heads"), c.q_heads, kv_heads);
    }
  }
  return sizes;
}

std::vector<int64_t> ModelConfig::sizes_of_groups(int64_t layer) const {
  const auto l = static_cast<size_t>(layer);
  if (!group_sizes.empty() && !group_sizes[l].empty()) return group_sizes[l];
  return std::vector<int64_t>(static_cast<size_t>(kv_heads[l]), q_heads / kv_heads[l]);
}

bool ModelConfig::has_unequal_groups() const {
  return std::ranges::any_of(group_sizes, [](const std::vector<int64_t>& sizes) {
    return !sizes.empty() && !all_equal(sizes);
  });
}

bool ModelConfig::is_uniform() const { return all_equal(kv_heads) && !has_unequal_groups(); }

}  // namespace gqa
