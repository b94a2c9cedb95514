// What convert() and expand() do to tensors, against the same written as plain loops over indices.
#include "gqa/convert.h"

#include <gtest/gtest.h>

#include <cmath>

#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::load_tensors;
using test::Loaded;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;
using Tensors = std::map<std::string, Loaded>;

std::string dtype_text(DType t) {
  return t == DType::f32 ? "F32" : t == DType::f16 ? "F16" : "BF16";
}

float from_bits(uint16_t bits, DType t) {
  return t == DType::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

/// The representable value nearest to x, ties to even: by trying.
float nearest(double x, DType t) {
  const float f = static_cast<float>(x);
  if (t == DType::f32) return f;
  const uint16_t guess = t == DType::f16 ? f32_to_f16(f) : f32_to_bf16(f);
  uint16_t best = guess;
  for (const int step : {-1, 1}) {
    const auto other = static_cast<uint16_t>(guess + step);
    const double off = std::abs(static_cast<double>(from_bits(other, t)) - x);
    const double best_off = std::abs(static_cast<double>(from_bits(best, t)) - x);
    if (off < best_off || (off == best_off && other % 2 == 0)) best = other;
  }
  return from_bits(best, t);
}

struct Shape {
  int64_t rows = 1, columns = 1;
};

Shape shape_of(const Loaded& t) { return {t.shape[0], t.shape.size() > 1 ? t.shape[1] : 1}; }

/// The mean over `heads` of element (d, column) of each head.
double naive_mean(const Loaded& t, const std::vector<int64_t>& heads, int64_t head_dim, int64_t d,
                  int64_t column) {
  double sum = 0;
  for (const int64_t head : heads) {
    sum += static_cast<double>(t.values[(head * head_dim + d) * shape_of(t).columns + column]);
  }
  return sum / static_cast<double>(heads.size());
}

void expect_merged(const Loaded& from, const Loaded& to, const HeadGroups& groups,
                   const TinyLlama& m, DType dtype) {
  const Shape s = shape_of(from);
  ASSERT_EQ(to.dtype, dtype_text(dtype));
  ASSERT_EQ(shape_of(to).rows, std::ssize(groups) * m.head_dim);
  ASSERT_EQ(shape_of(to).columns, s.columns);
  for (int64_t row = 0; row < shape_of(to).rows; ++row) {
    for (int64_t c = 0; c < s.columns; ++c) {
      const double mean =
          naive_mean(from, groups[row / m.head_dim], m.head_dim, row % m.head_dim, c);
      ASSERT_EQ(to.values[row * s.columns + c], nearest(mean, dtype)) << row << ", " << c;
    }
  }
}

/// The source's query head that stands at each place, counted out head by head.
std::vector<int64_t> naive_order(const HeadGroups& groups, const TinyLlama& m) {
  std::vector<int64_t> order;
  for (const auto& group : groups) {
    for (const int64_t g : group) {
      for (int64_t h = 0; h < m.q_heads; ++h) {
        if (h / (m.q_heads / m.kv_heads) == g) order.push_back(h);
      }
    }
  }
  return order;
}

void expect_rows_moved(const Loaded& from, const Loaded& to, const std::vector<int64_t>& order,
                       const TinyLlama& m, DType dtype) {
  ASSERT_EQ(to.shape, from.shape);
  ASSERT_EQ(to.dtype, dtype_text(dtype));
  const Shape s = shape_of(from);
  for (int64_t row = 0; row < s.rows; ++row) {
    const int64_t source = order[row / m.head_dim] * m.head_dim + row % m.head_dim;
    for (int64_t c = 0; c < s.columns; ++c) {
      const double want = static_cast<double>(from.values[source * s.columns + c]);
      ASSERT_EQ(to.values[row * s.columns + c], nearest(want, dtype)) << row << ", " << c;
    }
  }
}

void expect_columns_moved(const Loaded& from, const Loaded& to, const std::vector<int64_t>& order,
                          const TinyLlama& m, DType dtype) {
  ASSERT_EQ(to.shape, from.shape);
  ASSERT_EQ(to.dtype, dtype_text(dtype));
  const Shape s = shape_of(from);
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t c = 0; c < s.columns; ++c) {
      const int64_t source = order[c / m.head_dim] * m.head_dim + c % m.head_dim;
      const double want = static_cast<double>(from.values[row * s.columns + source]);
      ASSERT_EQ(to.values[row * s.columns + c], nearest(want, dtype)) << row << ", " << c;
    }
  }
}

bool is_attention(const std::string& name) {
  return name.find("self_attn.") != name.npos && !name.ends_with("o_proj.bias");
}

/// All of a conversion by `groups` (one entry a layer) and mean.
void expect_converted(const Tensors& from, const Tensors& to, const std::vector<HeadGroups>& groups,
                      const TinyLlama& m, DType dtype) {
  ASSERT_EQ(from.size(), to.size());
  for (int64_t l = 0; l < m.n_layers; ++l) {
    const auto order = naive_order(groups[l], m);
    for (const char* kind : {"weight", "bias"}) {
      const auto name = [&](const char* part) {
        return fmt::format("model.layers.{}.self_attn.{}_proj.{}", l, part, kind);
      };
      if (!from.contains(name("q"))) continue;
      SCOPED_TRACE(name("*"));
      expect_rows_moved(from.at(name("q")), to.at(name("q")), order, m, dtype);
      expect_merged(from.at(name("k")), to.at(name("k")), groups[l], m, dtype);
      expect_merged(from.at(name("v")), to.at(name("v")), groups[l], m, dtype);
    }
    const std::string o = fmt::format("model.layers.{}.self_attn.o_proj.weight", l);
    expect_columns_moved(from.at(o), to.at(o), order, m, dtype);
  }
  for (const auto& [name, tensor] : from) {
    if (is_attention(name)) continue;
    SCOPED_TRACE(name);
    ASSERT_EQ(tensor.shape, to.at(name).shape);
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      ASSERT_EQ(to.at(name).values[i], nearest(static_cast<double>(tensor.values[i]), dtype));
    }
  }
}

/// Every kind of folder, in every type.
std::vector<TinyLlama> all_kinds() {
  std::vector<TinyLlama> kinds;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    kinds.push_back({.dtype = dtype});
    kinds.push_back({.kv_heads = 4,
                     .tied_head = false,
                     .attention_bias = true,
                     .mlp_bias = true,
                     .dtype = dtype});
    kinds.push_back({.n_layers = 3,
                     .q_heads = 15,
                     .kv_heads = 15,
                     .head_dim = 2,
                     .attention_bias = true,
                     .dtype = dtype,
                     .shards = 3});
  }
  return kinds;
}

ConvertOptions to_heads(int64_t kv_heads) {
  ConvertOptions options{.grouping = "neighbour", .merge = "mean"};
  options.kv_heads = kv_heads;
  return options;
}

TEST(Convert, AsManyHeadsAsBeforeChangeNothing) {
  for (const TinyLlama& m : all_kinds()) {
    for (const char* merge : {"mean", "first"}) {
      for (const char* grouping : {"neighbour", "random"}) {
        const TempDir dir;
        write_tiny(dir / "in", m);
        ConvertOptions options = to_heads(m.kv_heads);
        options.merge = merge;
        options.grouping = grouping;
        convert(dir / "in", dir / "out", options);
        EXPECT_EQ(load_tensors(dir / "in"), load_tensors(dir / "out")) << merge << grouping;
      }
    }
  }
}

TEST(Convert, UndoesExpandToTheBit) {
  for (TinyLlama m : all_kinds()) {
    m.kv_heads = m.q_heads == 15 ? 3 : 2;
    const TempDir dir;
    write_tiny(dir / "in", m);
    expand(dir / "in", dir / "wide", {});
    EXPECT_EQ(load_config(dir / "wide").kv_heads, std::vector<int64_t>(m.n_layers, m.q_heads));
    EXPECT_NE(load_tensors(dir / "in"), load_tensors(dir / "wide"));
    convert(dir / "wide", dir / "out", to_heads(m.kv_heads));
    EXPECT_EQ(load_tensors(dir / "in"), load_tensors(dir / "out"));
  }
}

TEST(Convert, NeighboursAreAveraged) {
  for (const TinyLlama& m : all_kinds()) {
    const TempDir dir;
    write_tiny(dir / "in", m);
    const int64_t n = m.kv_heads == 15 ? 5 : 2;
    convert(dir / "in", dir / "out", to_heads(n));
    HeadGroups groups(n);
    for (int64_t h = 0; h < m.kv_heads; ++h) groups[h / (m.kv_heads / n)].push_back(h);
    expect_converted(load_tensors(dir / "in"), load_tensors(dir / "out"),
                     std::vector<HeadGroups>(m.n_layers, groups), m, m.dtype);
  }
}

TEST(Convert, GroupsFromAFileMoveHeadsInEveryType) {
  const std::vector<HeadGroups> groups = {{{2, 0}, {3, 1}}, {{1, 3}, {0, 2}}};
  for (const DType from : {DType::f32, DType::f16, DType::bf16}) {
    for (const DType to : {DType::f32, DType::f16, DType::bf16}) {
      const TinyLlama m{.kv_heads = 4, .tied_head = false, .attention_bias = true, .dtype = from};
      const TempDir dir;
      write_tiny(dir / "in", m);
      test::put_file(dir / "groups.json", Json(groups).dump());
      ConvertOptions options = to_heads(2);
      options.grouping = "manual:" + (dir / "groups.json").string();
      options.output.dtype = to;
      convert(dir / "in", dir / "out", options);
      expect_converted(load_tensors(dir / "in"), load_tensors(dir / "out"), groups, m, to);
    }
  }
}

TEST(Convert, OneListOfGroupsIsForEveryLayer) {
  const HeadGroups groups = {{7, 0, 4, 3}, {1, 2, 6, 5}};
  const TinyLlama m{.n_layers = 3};
  const TempDir dir;
  write_tiny(dir / "in", m);
  test::put_file(dir / "groups.json", Json(groups).dump());
  ConvertOptions options = to_heads(2);
  options.grouping = "manual:" + (dir / "groups.json").string();
  EXPECT_EQ(plan_convert(dir / "in", options).plan().groups, std::vector<HeadGroups>(3, groups));
  convert(dir / "in", dir / "out", options);
  expect_converted(load_tensors(dir / "in"), load_tensors(dir / "out"), {groups, groups, groups}, m,
                   DType::f32);
}

TEST(Convert, RandomGroupsAreThoseOfThePlan) {
  const TinyLlama m{.attention_bias = true, .dtype = DType::bf16};
  const TempDir dir;
  write_tiny(dir / "in", m);
  ConvertOptions options = to_heads(2);
  options.grouping = "random";
  options.seed = 9;
  convert(dir / "in", dir / "out", options);
  expect_converted(load_tensors(dir / "in"), load_tensors(dir / "out"),
                   plan_convert(dir / "in", options).plan().groups, m, DType::bf16);
}

TEST(Convert, FirstKeepsAHeadOfEachGroup) {
  const TinyLlama m{.attention_bias = true, .dtype = DType::f16};
  const TempDir dir;
  write_tiny(dir / "in", m);
  ConvertOptions options = to_heads(2);
  options.merge = "first";
  options.grouping = "manual";
  options.explicit_groups.assign(2, {{5, 1, 0, 2}, {3, 7, 6, 4}});
  convert(dir / "in", dir / "out", options);
  const Tensors from = load_tensors(dir / "in"), to = load_tensors(dir / "out");
  for (const char* part : {"k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias"}) {
    const std::string name = fmt::format("model.layers.1.self_attn.{}", part);
    const size_t head = from.at(name).bytes.size() / 8;
    EXPECT_EQ(to.at(name).bytes, from.at(name).bytes.substr(5 * head, head) +
                                     from.at(name).bytes.substr(3 * head, head));
  }
}

TEST(Expand, RepeatsEachHeadForItsQueries) {
  for (const DType dtype : {DType::f32, DType::f16}) {
    const TinyLlama m{.kv_heads = 2, .attention_bias = true};
    const TempDir dir;
    write_tiny(dir / "in", m);
    expand(dir / "in", dir / "out", {.dtype = dtype});
    const Tensors from = load_tensors(dir / "in"), to = load_tensors(dir / "out");
    const HeadGroups repeated = {{0}, {0}, {0}, {0}, {1}, {1}, {1}, {1}};
    for (const char* part : {"k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias"}) {
      const std::string name = fmt::format("model.layers.1.self_attn.{}", part);
      expect_merged(from.at(name), to.at(name), repeated, m, dtype);
    }
    for (const char* part : {"q_proj.weight", "o_proj.weight", "q_proj.bias", "o_proj.bias"}) {
      const std::string name = fmt::format("model.layers.0.self_attn.{}", part);
      EXPECT_EQ(from.at(name) == to.at(name), dtype == DType::f32) << name;
    }
  }
}

}  // namespace
}  // namespace gqa
