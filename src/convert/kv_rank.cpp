#include "convert/kv_rank.h"

#include "core/fail.h"
#include "regroup/rotary_planes.h"

namespace gqa {

void check_kv_rank(const ConvertOptions& options) {
  require(options.merge == "pca", "kv_rank (--kv-rank) goes with merge `pca` alone, not with `{}`",
          options.merge);
  require(!options.budget, "kv_rank (--kv-rank) does not go with a budget: give kv_heads");
  require(!options.unequal || options.kv_heads > 0 || options.grouping.starts_with("manual"),
          "unequal groups need kv_heads: with kv_rank alone each KV head stays alone");
}

void check_kv_rank(const ModelConfig& config, int64_t kv_rank) {
  require(kv_rank >= 2 && kv_rank % 2 == 0 && kv_rank < config.head_dim,
          "kv_rank (--kv-rank): expected an even number from 2 to {}, as the model's heads have {} "
          "dimensions in planes of 2, got {}",
          config.head_dim - 2, config.head_dim, kv_rank);
}

std::vector<int64_t> plan_planes(const SourceModel& source, int64_t kv_rank,
                                 const std::vector<HeadGroups>& groups, Calibrator* calibrator,
                                 const Progress& progress) {
  const ModelConfig& config = source.config;
  const auto tell = [&](int64_t layer) {
    if (progress) progress("planes", layer, config.n_layers);
  };
  const int64_t keep = kv_rank / 2;
  if (calibrator != nullptr) return calibrator->keep_planes(keep, groups, [&] { tell(0); });
  Matrix costs = Matrix::Zero(config.head_dim / 2, config.head_dim / 2);
  for (int64_t l = 0; l < config.n_layers; ++l) {
    tell(l);
    costs += plane_energies(load_grams(config, source.checkpoint, l));
  }
  tell(config.n_layers);
  return choose_planes(costs, keep, 1).front();
}

std::vector<HeadGroups> every_head_alone(const ModelConfig& config) {
  std::vector<HeadGroups> layers;
  for (const int64_t heads : config.kv_heads) {
    HeadGroups& groups = layers.emplace_back();
    for (int64_t g = 0; g < heads; ++g) groups.push_back({g});
  }
  return layers;
}

}  // namespace gqa
