#include "gqa/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "cli/args.h"
#include "cli/format.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace gqa::cli {
namespace {

struct InspectArgs {
  Common common;
  std::string model;
  InspectOptions options;
};

/// Query heads of each KV head, per layer.
std::vector<std::vector<int64_t>> group_sizes(const ModelConfig& config) {
  std::vector<std::vector<int64_t>> layers;
  for (int64_t l = 0; l < config.n_layers; ++l) layers.push_back(config.sizes_of_groups(l));
  return layers;
}

/// [n, n] as a list of rows.
Json matrix_json(const std::vector<double>& matrix, int64_t n) {
  Json rows = Json::array();
  for (int64_t r = 0; r < n; ++r) {
    const auto row = matrix.begin() + r * n;
    rows.push_back(std::vector<double>(row, row + n));
  }
  return rows;
}

Json aligned_json(const std::vector<HeadSimilarity>& layers) {
  Json list = Json::array();
  for (const HeadSimilarity& layer : layers) {
    Json suggested = Json::array();
    for (const SuggestedGroups& s : layer.suggested) {
      suggested.push_back(
          {{"kv_heads", s.groups.size()}, {"similarity", s.similarity}, {"groups", s.groups}});
    }
    list.push_back({{"k", matrix_json(layer.keys, layer.kv_heads)},
                    {"v", matrix_json(layer.values, layer.kv_heads)},
                    {"joint", matrix_json(layer.joint, layer.kv_heads)},
                    {"suggested", suggested}});
  }
  return list;
}

Json as_json(const Inspection& found) {
  const ModelConfig& config = found.config;
  Json json = {{"model_type", config.model_type},
               {"n_layers", config.n_layers},
               {"q_heads", config.q_heads},
               {"kv_heads", config.kv_heads},
               {"head_dim", config.head_dim},
               {"kv_bytes_per_token", found.kv_bytes_per_token},
               {"parameters", found.parameters},
               {"width", config.width},
               {"mlp_width", config.mlp_width},
               {"vocab_size", config.vocab_size},
               {"max_positions", config.max_positions},
               {"dtypes", found.dtypes},
               {"weight_bytes", found.weight_bytes},
               {"k_similarity", found.k_similarity},
               {"v_similarity", found.v_similarity}};
  if (config.window > 0) json["window"] = config.window;
  if (config.has_unequal_groups()) json["group_sizes"] = group_sizes(config);
  if (!found.aligned.empty()) json["aligned_similarity"] = aligned_json(found.aligned);
  return json;
}

std::string kind_of_attention(const ModelConfig& config) {
  const auto all = [&](int64_t heads) {
    return std::all_of(config.kv_heads.begin(), config.kv_heads.end(),
                       [&](int64_t n) { return n == heads; });
  };
  if (all(config.q_heads)) return "multi-head";
  if (all(1)) return "multi-query";
  if (config.has_unequal_groups()) return "grouped-query, unequal groups";
  if (!config.is_uniform()) return "grouped-query";
  return fmt::format("grouped-query, {} query heads a group",
                     config.q_heads / config.kv_heads.front());
}

std::string similarity_table(const Inspection& found) {
  const auto cell = [](double similarity) {
    return std::isnan(similarity) ? "-" : fmt::format("{:.3f}", similarity);
  };
  std::vector<std::vector<std::string>> rows{{"layer", "KV heads", "K", "V"}};
  const bool unequal = found.config.has_unequal_groups();
  if (unequal) rows.front().emplace_back("query heads of each");
  for (size_t i = 0; i < found.config.kv_heads.size(); ++i) {
    rows.push_back({std::to_string(i), std::to_string(found.config.kv_heads[i]),
                    cell(found.k_similarity.at(i)), cell(found.v_similarity.at(i))});
    if (!unequal) continue;
    const auto sizes = found.config.sizes_of_groups(static_cast<int64_t>(i));
    rows.back().push_back(fmt::format("{}", fmt::join(sizes, " ")));
  }
  return table_text(rows);
}

std::string groups_text(const HeadGroups& groups) {
  std::vector<std::string> texts;
  for (const auto& group : groups) texts.push_back(fmt::format("{{{}}}", fmt::join(group, ",")));
  return fmt::format("{}", fmt::join(texts, " "));
}

/// Keys below the diagonal, values above it.
std::string aligned_table(const HeadSimilarity& layer) {
  std::vector<std::vector<std::string>> rows(1, {"K\\V"});
  for (int64_t a = 0; a < layer.kv_heads; ++a) {
    rows.front().push_back(std::to_string(a));
    rows.push_back({std::to_string(a)});
    for (int64_t b = 0; b < layer.kv_heads; ++b) {
      const auto& matrix = b < a ? layer.keys : layer.values;
      const auto at = static_cast<size_t>(a * layer.kv_heads + b);
      rows.back().push_back(a == b ? "-" : fmt::format("{:.2f}", matrix.at(at)));
    }
  }
  return table_text(rows);
}

std::string aligned_text(const std::vector<HeadSimilarity>& layers) {
  std::string text =
      "\nSimilarity of KV heads in the bases that suit them best: K below the diagonal, V above\n";
  for (size_t l = 0; l < layers.size(); ++l) {
    text += fmt::format("\nlayer {}\n{}", l, aligned_table(layers[l]));
    for (const SuggestedGroups& s : layers[l].suggested) {
      text += fmt::format("to {}, similarity {:.2f} inside: {}\n",
                          counted(std::ssize(s.groups), "KV head"), s.similarity,
                          groups_text(s.groups));
    }
  }
  return text;
}

std::string as_text(const Inspection& found) {
  const ModelConfig& config = found.config;
  Fields fields;
  fields.add("model",
             fmt::format("{}, {}, width {}, MLP {}", config.model_type,
                         counted(config.n_layers, "layer"), config.width, config.mlp_width));
  fields.add("heads",
             fmt::format("{} query, {} KV, size {} ({})", config.q_heads,
                         range_text(config.kv_heads), config.head_dim, kind_of_attention(config)));
  fields.add("vocabulary", grouped(config.vocab_size));
  fields.add("positions", grouped(config.max_positions));
  if (config.window > 0) {
    fields.add("window", fmt::format("each token sees the last {}", grouped(config.window)));
  }
  fields.add("parameters", grouped(found.parameters));
  fields.add("weights", fmt::format("{}, {}", exact_bytes(found.weight_bytes),
                                    fmt::join(found.dtypes, " and ")));
  fields.add("KV cache", exact_bytes(found.kv_bytes_per_token) + " per token");
  int64_t full = 0;
  if (!__builtin_mul_overflow(found.kv_bytes_per_token, config.max_positions, &full)) {
    fields.add("",
               fmt::format("{} at {} tokens", human_bytes(full), grouped(config.max_positions)));
  }
  return fields.text() + "\nSimilarity of KV heads: mean |cosine| of their weights over pairs\n" +
         similarity_table(found) + (found.aligned.empty() ? "" : aligned_text(found.aligned));
}

int run_inspect(const InspectArgs& args) {
  ProgressBar bar(args.common);
  const Inspection found = inspect(args.model, args.options, bar.callback());
  bar.erase();
  if (args.common.json) {
    print_json(as_json(found));
  } else {
    print(as_text(found));
  }
  return 0;
}

}  // namespace

void declare_inspect(Command& verb) {
  auto args = std::make_shared<InspectArgs>();
  add_model(verb, args->model);
  add_flag(verb, "--similarity", args->options.similarity,
           "How alike KV heads are, whatever their bases, and which should share");
  add_common(verb, args->common);
  verb.run = [args] { return run_inspect(*args); };
}

}  // namespace gqa::cli
