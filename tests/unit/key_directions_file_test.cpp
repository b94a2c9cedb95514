#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "gqa/model.h"
#include "io/key_directions.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::RawTensor;

constexpr int64_t dim = 6;

/// Rows of `heads` orthonormal bases, each a product of rotations in planes.
std::vector<float> bases(int64_t heads, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> angle(0, 6.28);
  std::vector<float> values;
  for (int64_t h = 0; h < heads; ++h) {
    std::vector<double> m(dim * dim);
    for (int64_t i = 0; i < dim; ++i) m[static_cast<size_t>(i * dim + i)] = 1;
    for (int64_t i = 0; i < dim; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        const double a = angle(random);
        for (int64_t d = 0; d < dim; ++d) {
          double& x = m[static_cast<size_t>(i * dim + d)];
          double& y = m[static_cast<size_t>(j * dim + d)];
          const double turned = x * std::cos(a) - y * std::sin(a);
          y = y * std::cos(a) + x * std::sin(a);
          x = turned;
        }
      }
    }
    for (const double x : m) values.push_back(static_cast<float>(x));
  }
  return values;
}

struct Setting {
  test::TempDir dir;
  std::filesystem::path folder =
      test::write_tiny(dir / "model", {.layer_kv_heads = {2, 4}, .head_dim = dim});
  ModelConfig config = load_config(folder);
  std::vector<std::vector<float>> layers{bases(2, 1), bases(4, 2)};

  static std::string name(int l) { return fmt::format("model.layers.{}.key_directions", l); }
  std::vector<RawTensor> tensors() const {
    return {test::raw_tensor(name(0), {2, dim, dim}, layers[0]),
            test::raw_tensor(name(1), {4, dim, dim}, layers[1])};
  }
  void write(const std::vector<RawTensor>& list) const {
    test::write_safetensors(folder / "key_directions.safetensors", list);
  }
  void refuses(std::initializer_list<std::string_view> words) const {
    const std::string message = test::expect_error(ErrorKind::bad_data, words,
                                                   [&] { read_key_directions(folder, config); });
    EXPECT_NE(message.find("key_directions.safetensors"), message.npos) << message;
  }
};

TEST(KeyDirectionsFile, AreReadWhereTheyAreThere) {
  Setting s;
  const Model model = Model::load(s.folder);
  EXPECT_TRUE(model.key_directions().layers.empty());
  s.write(s.tensors());
  EXPECT_EQ(model.key_directions().layers, s.layers);
  const auto both = s.tensors();
  s.write({both[1], both[0]});
  EXPECT_EQ(model.key_directions().layers, s.layers);
}

TEST(KeyDirectionsFile, RoundingIsNoError) {
  Setting s;
  for (float& x : s.layers[1]) x *= 1.0004f;  // squares: 1.0008
  s.write(s.tensors());
  EXPECT_EQ(read_key_directions(s.folder, s.config), s.layers);
}

TEST(KeyDirectionsFile, TensorsMustBeThoseOfTheLayers) {
  Setting s;
  auto list = s.tensors();
  s.write({list[0]});
  s.refuses({"tensor `model.layers.1.key_directions` is missing"});
  list.push_back(test::raw_tensor(s.name(2), {2, dim, dim}, s.layers[0]));
  s.write(list);
  s.refuses({"a tensor for each of 2 layers", "3 tensors"});
  list.resize(1);
  list.push_back(test::raw_tensor(s.name(1), {2, 2 * dim, dim}, s.layers[1]));
  s.write(list);
  s.refuses({"`model.layers.1.key_directions`", "expected F32 [4, 6, 6], got F32 [2, 12, 6]"});
  list[1] = test::raw_tensor(s.name(1), {4, dim, dim}, s.layers[1], DType::f16);
  s.write(list);
  s.refuses({"`model.layers.1.key_directions`", "expected F32 [4, 6, 6], got F16"});
  test::put_file(s.folder / "key_directions.safetensors", "none");
  s.refuses({"not a safetensors file"});
}

TEST(KeyDirectionsFile, RowsMustBeOrthonormal) {
  const auto changed = [](auto&& change, std::initializer_list<std::string_view> words) {
    Setting s;
    change(s.layers[1].data() + 3 * dim * dim);  // the last head of the last layer
    s.write(s.tensors());
    s.refuses(words);
  };
  changed([](float* rows) { rows[8] = std::numeric_limits<float>::quiet_NaN(); },
          {"`model.layers.1.key_directions`", "[3, 1, 2]"});
  changed(
      [](float* rows) {
        for (int64_t d = 0; d < dim; ++d) rows[5 * dim + d] *= 1.001f;
      },
      {"`model.layers.1.key_directions`: expected orthonormal rows", "rows 5 and 5 of KV head 3"});
  changed([](float* rows) { std::copy_n(rows, dim, rows + 4 * dim); },
          {"expected orthonormal rows, got a product of 1 for rows 0 and 4 of KV head 3"});
}

TEST(KeyDirectionsFile, OnlyLowRankAttentionReadsThem) {
  Setting s;
  test::put_file(s.folder / "key_directions.safetensors", "none");
  const Model model = Model::load(s.folder);
  test::expect_error(ErrorKind::bad_data, {"key_directions.safetensors"},
                     [&] { model.make_approximation(LowRank{2}, KvDType::f32); });
  EXPECT_NO_THROW(model.make_approximation(BlockLocal{2}, KvDType::f32));
}

}  // namespace
}  // namespace gqa
