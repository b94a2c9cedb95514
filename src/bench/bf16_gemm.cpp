#include "bench/bf16_gemm.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "bench/random_floats.h"
#include "core/fail.h"

namespace gqa::bench {
namespace {

using dnnl::memory;

/// A product of its own: with memory that no other thread writes.
struct TileOfC {
  dnnl::matmul product;
  std::unordered_map<int, memory> arguments;
};

memory random_matrix(const dnnl::engine& engine, dnnl::stream& stream, const memory::desc& desc) {
  const memory::dims dims = desc.dims();
  memory plain({dims, memory::data_type::f32, memory::format_tag::ab}, engine);
  const std::vector<float> numbers = random_floats(dims[0] * dims[1]);
  std::copy(numbers.begin(), numbers.end(), static_cast<float*>(plain.get_data_handle()));
  memory matrix(desc, engine);
  dnnl::reorder(plain, matrix).execute(stream, plain, matrix);
  stream.wait();
  return matrix;
}

}  // namespace

struct Bf16Gemm::Impl {
  explicit Impl(int64_t rows_and_columns) : size(rows_and_columns) {}

  const int64_t size;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::vector<TileOfC> tiles;

  TileOfC tile(int64_t rows, int64_t columns) const {
    constexpr auto bf16 = memory::data_type::bf16;
    constexpr auto any = memory::format_tag::any, plain = memory::format_tag::ab;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::matmul::primitive_desc desc(
        {{{rows, size}, bf16, plain}, {{size, columns}, bf16, any}, {{rows, columns}, bf16, plain}},
        attributes, engine);
    dnnl::stream stream(engine);
    return {dnnl::matmul(desc),
            {{DNNL_ARG_SRC, random_matrix(engine, stream, desc.src_desc())},
             {DNNL_ARG_WEIGHTS, random_matrix(engine, stream, desc.weights_desc())},
             {DNNL_ARG_DST, memory(desc.dst_desc(), engine)},
             {DNNL_ARG_SCRATCHPAD, memory(desc.scratchpad_desc(), engine)}}};
  }
};

Bf16Gemm::Bf16Gemm(int threads, int64_t size) : impl_(std::make_unique<Impl>(size)) {
  const auto [rows, columns] = tile_grid(threads);
  const auto part = [size](int64_t i, int n) { return size * (i + 1) / n - size * i / n; };
  omp_set_num_threads(1);  // the layout of b may depend on it
  try {
    for (int t = 0; t < threads; ++t) {
      impl_->tiles.push_back(impl_->tile(part(t / columns, rows), part(t % columns, columns)));
    }
  } catch (const dnnl::error& error) {
    fail(ErrorKind::resources, "oneDNN: {}", error.what());
  }
}

Bf16Gemm::~Bf16Gemm() = default;

void Bf16Gemm::run(ThreadPool& pool) {
  pool.parallel_for(pool.n_threads(), [&](int64_t t, int) {
    omp_set_num_threads(1);  // of this thread's own calls
    const TileOfC& tile = impl_->tiles[static_cast<size_t>(t)];
    dnnl::stream stream(impl_->engine);
    tile.product.execute(stream, tile.arguments);
    stream.wait();
  });
}

}  // namespace gqa::bench
