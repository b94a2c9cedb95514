// What inspect() measures.
#include "gqa/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "gqa/convert.h"
#include "regroup/head_similarity.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::expect_error;
using test::load_tensors;
using test::raw_tensor;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;
using testing::ElementsAre;
using testing::IsEmpty;

double naive_similarity(const std::vector<float>& values, int64_t heads) {
  const int64_t n = std::ssize(values) / heads;
  const auto dot = [&](int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      sum += static_cast<double>(values[a * n + i]) * static_cast<double>(values[b * n + i]);
    }
    return sum;
  };
  double total = 0;
  int pairs = 0;
  for (int64_t a = 0; a < heads; ++a) {
    for (int64_t b = a + 1; b < heads; ++b, ++pairs) {
      total += std::abs(dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)));
    }
  }
  return total / pairs;
}

TEST(Inspect, CountsAndCompares) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    // Heads of 6 * 301 elements: more than a block, and no multiple of one.
    const TinyLlama m{.width = 301, .kv_heads = 4, .attention_bias = true, .dtype = dtype};
    const TempDir dir;
    write_tiny(dir / "in", m);
    const Inspection found = inspect(dir / "in");
    const auto tensors = load_tensors(dir / "in");
    int64_t parameters = 0, bytes = 0;
    for (const auto& [name, tensor] : tensors) {
      parameters += std::ssize(tensor.values);
      bytes += std::ssize(tensor.bytes);
    }
    EXPECT_EQ(found.parameters, parameters);
    EXPECT_EQ(found.weight_bytes, bytes);
    EXPECT_THAT(found.dtypes, ElementsAre(std::string(dtype_name(dtype))));
    EXPECT_EQ(found.kv_bytes_per_token, 2 * 2 * 4 * 6 * dtype_bytes(dtype));
    ASSERT_EQ(found.k_similarity.size(), 2u);
    for (int64_t l = 0; l < 2; ++l) {
      const auto values = [&](const char* part) {
        return tensors.at(fmt::format("model.layers.{}.self_attn.{}.weight", l, part)).values;
      };
      EXPECT_NEAR(found.k_similarity[l], naive_similarity(values("k_proj"), 4), 1e-6);
      EXPECT_NEAR(found.v_similarity[l], naive_similarity(values("v_proj"), 4), 1e-6);
    }
    EXPECT_NE(found.k_similarity[0], found.v_similarity[0]);
  }
}

TEST(Inspect, EqualOppositeAndLoneHeads) {
  const TempDir dir;
  auto tensors = test::tiny_tensors({.n_layers = 1, .q_heads = 2, .kv_heads = 2});
  for (auto& tensor : tensors) {
    const bool is_k = tensor.name.ends_with("k_proj.weight");
    if (!is_k && !tensor.name.ends_with("v_proj.weight")) continue;
    std::vector<float> values(2 * 6 * 10);
    for (int i = 0; i < 60; ++i) {
      values[i] = static_cast<float>(i + 1);
      values[60 + i] = is_k ? -2.0f * values[i] : 0.0f;
    }
    tensor = raw_tensor(tensor.name, {12, 10}, values);
  }
  write_tiny(dir / "in", {.n_layers = 1, .q_heads = 2, .kv_heads = 2});
  test::write_safetensors(dir / "in" / "model.safetensors", tensors);
  EXPECT_NEAR(inspect(dir / "in").k_similarity[0], 1, 1e-12);
  EXPECT_EQ(inspect(dir / "in").v_similarity[0], 0);
  write_tiny(dir / "lone", {.kv_heads = 1});
  EXPECT_TRUE(std::isnan(inspect(dir / "lone").k_similarity[0]));
}

/// A model of one layer whose KV head h is, but for factors, head h % distinct.
std::filesystem::path repeating(const TempDir& dir, int64_t kv_heads, int64_t distinct) {
  const TinyLlama m{.n_layers = 1, .width = 40, .q_heads = kv_heads, .kv_heads = kv_heads};
  write_tiny(dir / "in", m);
  auto tensors = test::tiny_tensors(m);
  const auto originals = load_tensors(dir / "in");
  for (auto& tensor : tensors) {
    const bool is_k = tensor.name.ends_with("k_proj.weight");
    if (!is_k && !tensor.name.ends_with("v_proj.weight")) continue;
    std::vector<float> values = originals.at(tensor.name).values;
    const int64_t size = std::ssize(values) / kv_heads;
    for (int64_t i = 0; i < std::ssize(values); ++i) {
      const int64_t h = i / size;
      const auto factor = static_cast<float>(is_k ? h + 1 : -h - 1);
      values[i] = factor * originals.at(tensor.name).values[h % distinct * size + i % size];
    }
    tensor = raw_tensor(tensor.name, {kv_heads * 6, 40}, values);
  }
  test::write_safetensors(dir / "in" / "model.safetensors", tensors);
  return dir / "in";
}

/// 8 heads, all groups priced; 16, clustered.
TEST(Inspect, SuggestsHeadsThatAreTheSame) {
  for (const int64_t n : {8, 16}) {
    const TempDir dir;
    const auto model = repeating(dir, n, 4);
    EXPECT_THAT(inspect(model).aligned, IsEmpty());
    const auto aligned = inspect(model, {.similarity = true}).aligned;
    ASSERT_EQ(aligned.size(), 1u);
    const HeadSimilarity& layer = aligned[0];
    ASSERT_EQ(layer.kv_heads, n);
    for (const auto* matrix : {&layer.keys, &layer.values, &layer.joint}) {
      ASSERT_EQ(std::ssize(*matrix), n * n);
      for (int64_t a = 0; a < n; ++a) {
        for (int64_t b = 0; b < n; ++b) {
          const double got = matrix->at(a * n + b);
          // Factors up to 16 round in f32: 6e-8 of each element.
          EXPECT_EQ(got > 1 - 1e-6, a % 4 == b % 4) << a << " " << b << " " << got;
        }
      }
    }
    std::vector<size_t> numbers;
    for (const SuggestedGroups& s : layer.suggested) {
      numbers.push_back(s.groups.size());
      EXPECT_TRUE(s.groups.size() >= 4 || s.similarity < 0.9) << s.similarity;
      if (s.groups.size() != 4) continue;
      HeadGroups wanted(4);
      for (int64_t h = 0; h < n; ++h) wanted[h % 4].push_back(h);
      EXPECT_EQ(s.groups, wanted);
      EXPECT_NEAR(s.similarity, 1, 1e-6);
    }
    EXPECT_EQ(numbers, (n == 8 ? std::vector<size_t>{1, 2, 4} : std::vector<size_t>{1, 2, 4, 8}));
  }
}

/// Each layer by its own weights, norm, biases and groups.
TEST(Inspect, AlignsEveryLayer) {
  const TempDir dir;
  write_tiny(dir / "in", {.layer_kv_heads = {3, 1},
                          .group_sizes = {{3, 1, 4}, {}},
                          .attention_bias = true,
                          .dtype = DType::bf16});
  const auto aligned = inspect(dir / "in", {.similarity = true}).aligned;
  ASSERT_EQ(aligned.size(), 2u);
  const Checkpoint checkpoint = Checkpoint::open(dir / "in");
  const Heads heads = load_heads(load_config(dir / "in"), 0, attention_tensors(checkpoint, 0));
  const AlignedSimilarity want =
      aligned_similarity(make_grams(heads, assumed_variance(attention_norm(checkpoint, 0), true)));
  for (int64_t i = 0; i < 9; ++i) {
    EXPECT_EQ(aligned[0].keys[i], want.keys.data()[i]);
    EXPECT_EQ(aligned[0].values[i], want.values.data()[i]);
    EXPECT_EQ(aligned[0].joint[i], want.joint.data()[i]);
  }
  ASSERT_EQ(aligned[0].suggested.size(), 1u);  // 3 is a prime
  EXPECT_EQ(aligned[0].suggested[0].groups, (HeadGroups{{0, 1, 2}}));
  EXPECT_NEAR(aligned[0].suggested[0].similarity,
              (want.joint(0, 1) + want.joint(0, 2) + want.joint(1, 2)) / 3, 1e-15);
  EXPECT_THAT(aligned[1].joint, ElementsAre(1));
  EXPECT_THAT(aligned[1].suggested, IsEmpty());
}

TEST(Inspect, ReadsQueriesForAlignmentAlone) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  auto tensors = test::tiny_tensors({});
  for (auto& tensor : tensors) {
    if (tensor.name == "model.layers.1.self_attn.q_proj.weight") {
      store_element(tensor.data.data(), DType::f32, 3, NAN);
    }
  }
  test::write_safetensors(dir / "in" / "model.safetensors", tensors);
  EXPECT_EQ(inspect(dir / "in").k_similarity.size(), 2u);
  expect_error(ErrorKind::bad_data, {"model.layers.1.self_attn.q_proj.weight", "[0, 3]"},
               [&] { inspect(dir / "in", {.similarity = true}); });
}

TEST(Inspect, RefusesWhatIsNoModel) {
  const TempDir dir;
  expect_error(ErrorKind::no_input, {"none"}, [&] { inspect(dir / "none"); });
  write_tiny(dir / "in", {.others = {raw_tensor("stray", {1}, {1})}});
  expect_error(ErrorKind::bad_data, {"model.safetensors", "stray"}, [&] { inspect(dir / "in"); });
}

TEST(Inspect, CanBeStopped) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  const Progress stop = [](std::string_view, int64_t, int64_t) {
    throw Error(ErrorKind::interrupted, "stopped");
  };
  expect_error(ErrorKind::interrupted, {"stopped"}, [&] { inspect(dir / "in", {}, stop); });
}

}  // namespace
}  // namespace gqa
