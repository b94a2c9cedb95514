#include "reference/attention.h"

#include <cmath>

#include "reference/row.h"

namespace gqa::reference {

Result attend(const AttendItem& item, const AttendOptions& options, const Sees& sees) {
  const auto& kv = std::get<StridedKv>(item.kv);
  const auto v_head_dim = static_cast<size_t>(kv.v.shape[3]);
  Result result;
  for (int64_t t = 0; t < item.q.shape[0]; ++t) {
    for (int64_t h = 0; h < item.q.shape[1]; ++h) {
      const Row row = row_of(item, options, sees, t, h);
      std::vector<double> value(v_head_dim), value_size(v_head_dim);
      for (size_t i = 0; i < row.keys.size(); ++i) {
        const double weight = row.weights[i];
        for (size_t d = 0; d < v_head_dim; ++d) {
          const double x = element(kv.v, kv, row.keys[i], row.kv_head, static_cast<int64_t>(d));
          value[d] += weight * x;
          value_size[d] += weight * std::abs(x);
        }
      }
      result.out.insert(result.out.end(), value.begin(), value.end());
      result.value_size.insert(result.value_size.end(), value_size.begin(), value_size.end());
      result.lse.push_back(row.lse);
      result.score_size.push_back(row.score_size);
      result.added_size.push_back(row.added_size);
    }
  }
  return result;
}

}  // namespace gqa::reference
