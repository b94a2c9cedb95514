// The directions that convert() finds in a model's keys, against moments of its keys computed from
// the formulas.
#include "io/key_directions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "gqa/convert.h"
#include "gqa/inspect.h"
#include "support/expect_error.h"
#include "support/naive_llama.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::folder_content;
using test::NaiveLlama;
using test::put_file;
using test::raw_tensor;
using test::TempDir;
using test::TinyLlama;

constexpr int64_t window = 16;
const std::string text = "The quick brown fox jumps over a lazy dog, and the dog wakes up.";

fs::path write_model(const fs::path& dir, const TinyLlama& tiny) {
  test::write_tiny(dir, tiny);
  put_file(dir / "tokenizer.json", test::byte_tokenizer());
  put_file(dir.parent_path() / "text.txt", text);
  return dir;
}

ConvertOptions calibrated(const fs::path& source, int64_t kv_heads) {
  ConvertOptions options{.kv_heads = kv_heads};
  options.calibration = Calibration{.text = source.parent_path() / "text.txt",
                                    .tokens = 1000,  // all of it
                                    .sampled_tokens = 0,
                                    .window = window,
                                    .steps = 2};
  return options;
}

/// The text in windows that begin with BOS.
std::vector<std::vector<int32_t>> windows_of_text() {
  std::vector<std::vector<int32_t>> windows;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i % (window - 1) == 0) windows.push_back({1});
    windows.back().push_back(static_cast<unsigned char>(text[i]) + 1);
  }
  return windows;
}

/// E[k k^T] of a KV head of the model in `dir`.
std::vector<double> naive_moments(NaiveLlama& model, const TinyLlama& m, size_t layer, int64_t g) {
  const auto d = static_cast<size_t>(m.head_dim);
  std::vector<double> moments(d * d);
  int64_t tokens = 0;
  for (const auto& tokens_of_window : windows_of_text()) {
    model.logits(tokens_of_window);
    for (const auto& token : model.keys()[layer]) {
      const double* key = token.data() + static_cast<size_t>(g) * d;
      for (size_t i = 0; i < d * d; ++i) moments[i] += key[i / d] * key[i % d];
      ++tokens;
    }
  }
  for (double& x : moments) x /= static_cast<double>(tokens);
  return moments;
}

/// a^T M b of two rows.
double between(const float* a, const std::vector<double>& moments, const float* b, size_t d) {
  double sum = 0;
  for (size_t i = 0; i < d * d; ++i) {
    sum += static_cast<double>(a[i / d]) * moments[i] * static_cast<double>(b[i % d]);
  }
  return sum;
}

/// Orthonormal rows that make the moments diagonal, in falling order, are their eigenvectors.
void expect_directions(const float* rows, const std::vector<double>& moments, size_t d) {
  const double largest = between(rows, moments, rows, d);
  double before = largest;
  for (size_t a = 0; a < d; ++a) {
    const float* row = rows + a * d;
    for (size_t b = 0; b < d; ++b) {
      double product = 0;
      for (size_t i = 0; i < d; ++i) product += double{row[i]} * double{rows[b * d + i]};
      EXPECT_NEAR(product, a == b ? 1.0 : 0.0, 1e-6) << a << b;
      if (a == b) continue;
      // Keys in f32, and a row is right up to its neighbours' share of the largest.
      EXPECT_NEAR(between(row, moments, rows + b * d, d), 0.0, 3e-5 * largest) << a << b;
    }
    const double energy = between(row, moments, row, d);
    EXPECT_LE(energy, before * (1 + 1e-5)) << a;
    before = energy;
    const auto* most =
        std::max_element(row, row + d, [](float x, float y) { return std::abs(x) < std::abs(y); });
    EXPECT_GT(*most, 0.0f) << a;
  }
}

void expect_file(const fs::path& dir, TinyLlama tiny) {
  const ModelConfig config = load_config(dir);
  tiny.layer_kv_heads = config.kv_heads;
  tiny.group_sizes = config.group_sizes;
  NaiveLlama model(tiny, dir);
  const auto layers = read_key_directions(dir, config);
  ASSERT_EQ(std::ssize(layers), config.n_layers);
  const auto d = static_cast<size_t>(config.head_dim);
  for (size_t l = 0; l < layers.size(); ++l) {
    ASSERT_EQ(std::ssize(layers[l]), config.kv_heads[l] * config.head_dim * config.head_dim);
    for (int64_t g = 0; g < config.kv_heads[l]; ++g) {
      SCOPED_TRACE(testing::Message() << "layer " << l << ", KV head " << g);
      expect_directions(layers[l].data() + static_cast<size_t>(g) * d * d,
                        naive_moments(model, tiny, l, g), d);
    }
  }
}

TEST(KeyDirections, AreThoseOfTheResult) {
  for (TinyLlama tiny : {TinyLlama{}, TinyLlama{.attention_bias = true, .seed = 2},
                         TinyLlama{.n_layers = 3, .q_heads = 6, .kv_heads = 3, .window = 5}}) {
    tiny.vocab_size = 257;
    const TempDir dir;
    const fs::path in = write_model(dir / "in", tiny);
    const int64_t heads = tiny.kv_heads;
    for (const int64_t kv_heads : {heads, heads == 3 ? 1 : heads / 4}) {
      SCOPED_TRACE(kv_heads);
      ConvertOptions options = calibrated(in, kv_heads);
      options.output.force = true;
      convert(in, dir / "out", options);
      expect_file(dir / "out", tiny);
    }
    // Groups of different sizes, weights that are rounded.
    tiny.dtype = DType::f16;
    const fs::path half = write_model(dir / "half", tiny);
    ConvertOptions options = calibrated(half, heads == 3 ? 2 : 3);
    options.unequal = true;
    convert(half, dir / "unequal", options);
    expect_file(dir / "unequal", tiny);
  }
}

TEST(KeyDirections, OfAModelThatStaysAsItIs) {
  const TempDir dir;
  const fs::path in = write_model(dir / "in", {.vocab_size = 257, .dtype = DType::f16});
  convert(in, dir / "out", calibrated(in, 8));
  const auto before = test::load_tensors(in);
  const auto after = test::load_tensors(dir / "out");
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, tensor] : before) EXPECT_EQ(tensor.values, after.at(name).values) << name;
  EXPECT_TRUE(has_key_directions(dir / "out"));
}

TEST(KeyDirections, NeedText) {
  const TempDir dir;
  const fs::path in = write_model(dir / "in", {.vocab_size = 257});
  ConvertOptions options{.kv_heads = 2};
  convert(in, dir / "out", options);
  EXPECT_FALSE(has_key_directions(dir / "out"));
}

TEST(KeyDirections, ThreadsAndStopsChangeNoBit) {
  const TempDir dir;
  const fs::path in = write_model(dir / "in", {.vocab_size = 257});
  ConvertOptions options = calibrated(in, 2);
  options.output.threads = 1;
  convert(in, dir / "one", options);
  const auto want = folder_content(dir / "one");
  options.output.threads = 3;
  convert(in, dir / "two", options);
  EXPECT_EQ(folder_content(dir / "two"), want);

  options.output.resume = true;
  int64_t stops = 0;
  for (int64_t stop = 0;; ++stop) {  // in every place, also behind the weights
    int64_t calls = 0;
    const auto once = [&](std::string_view, int64_t, int64_t) {
      if (calls++ == stop) throw Error(ErrorKind::interrupted, "stopped");
    };
    bool whole = false;
    try {
      convert(in, dir / "out", options, once);
      whole = true;
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::interrupted) << error.what();
      ++stops;
      convert(in, dir / "out", options);
    }
    ASSERT_EQ(folder_content(dir / "out"), want) << stop;
    fs::remove_all(dir / "out");
    if (whole) break;
  }
  EXPECT_GT(stops, 30);
}

TEST(KeyDirections, VerifyKnowsThem) {
  const TempDir dir;
  const TinyLlama tiny{.kv_heads = 2, .vocab_size = 257};
  const fs::path model = write_model(dir / "model", tiny);
  std::vector<float> unit(2 * 6 * 6);
  for (size_t i = 0; i < unit.size(); ++i) unit[i] = i % 36 % 7 == 0 ? 1.0f : 0.0f;
  std::vector<float> longer = unit;
  longer[43] = 1.01f;
  std::vector<float> infinite = unit;
  infinite[3] = INFINITY;
  const auto layer = [](int l, std::vector<int64_t> shape, const std::vector<float>& values,
                        DType dtype = DType::f32) {
    return raw_tensor(key_directions_tensor(l), std::move(shape), values, dtype);
  };
  const auto problems = [&](const std::vector<test::RawTensor>& tensors) {
    test::write_safetensors(model / key_directions_name, tensors);
    const Verification found = verify(model);
    return found.problems.empty() ? "" : found.problems.front();
  };
  const std::vector<int64_t> shape = {2, 6, 6};
  const auto first = layer(0, shape, unit);
  EXPECT_EQ(problems({first, layer(1, shape, unit)}), "");
  const auto expect = [&](const std::vector<test::RawTensor>& tensors, const std::string& words) {
    const std::string problem = problems(tensors);
    EXPECT_NE(problem.find(words), std::string::npos) << problem;
    EXPECT_NE(problem.find(key_directions_name), std::string::npos) << problem;
  };
  expect({first}, "`model.layers.1.key_directions` is missing");
  expect({first, layer(1, {2, 36}, unit)}, "expected F32 [2, 6, 6], got F32 [2, 36]");
  expect({first, layer(1, shape, unit, DType::f16)}, "expected F32 [2, 6, 6], got F16");
  expect({first, layer(1, shape, longer)}, "rows 1 and 1 of KV head 1");
  expect({first, layer(1, shape, infinite)}, "finite");
  expect({first, layer(1, shape, unit), layer(2, shape, unit)}, "expected a tensor for each of 2");
  put_file(model / key_directions_name, "no safetensors");
  EXPECT_FALSE(verify(model).problems.empty());
}

}  // namespace
}  // namespace gqa
