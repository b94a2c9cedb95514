#include "attention/backward_bias.h"

#include <algorithm>
#include <bit>

#include "core/fail.h"
#include "core/half.h"

namespace gqa {
namespace {

using kernels::key_block;

/// An element of dbias stands for several scores.
bool sums(const AnyMutView<3>& dbias, const ItemShape& shape) {
  return (dbias.shape[0] == 1 && shape.q_heads > 1) || (dbias.shape[1] == 1 && shape.q_len > 1) ||
         (dbias.shape[2] == 1 && shape.keys.len > 1);
}

int64_t row_begin(const AnyMutView<3>& x, int64_t row) {
  return row / x.shape[1] * x.strides[0] + row % x.shape[1] * x.strides[1];
}

}  // namespace

BiasOrder bias_order(const AnyMutView<3>& dbias, const ItemShape& shape) {
  if (!dbias.data) return {};
  return {.one_for_heads = dbias.shape[0] == 1 && shape.kv_heads > 1,
          .one_for_keys = dbias.shape[2] == 1 && shape.keys.len > 1};
}

int64_t bias_scratch(const AnyMutView<3>& dbias, const ItemShape& shape) {
  if (!dbias.data || dbias.dtype == DType::f32 || !sums(dbias, shape)) return 0;
  const auto rows = checked_mul(dbias.shape[0], dbias.shape[1]);
  const auto floats = rows ? checked_mul(*rows, dbias.shape[2]) : std::nullopt;
  if (!floats) fail(ErrorKind::resources, "attend_backward: dbias is too large to be counted");
  return *floats;
}

BiasSums::BiasSums(const AnyMutView<3>& dbias, const ItemShape& shape, float* scratch)
    : dbias_(dbias), sums_(dbias), adds_(sums(dbias, shape)), len_(shape.keys.len) {
  if (bias_scratch(dbias, shape) > 0) sums_ = {scratch, DType::f32, dbias.shape};
}

void BiasSums::clear(int64_t row) const {
  for (int64_t s = 0; s < sums_.shape[2]; ++s) {
    store_element(sums_.data, sums_.dtype, row_begin(sums_, row) + s * sums_.strides[2], 0.0f);
  }
}

void BiasSums::add(const Tile& tile, int64_t block, const uint64_t* visible,
                   const float* ds) const {
  const int64_t first = block * key_block;
  const int64_t count = std::min(key_block, len_ - first);
  for (int64_t r = 0; r < tile.rows(); ++r, ds += key_block) {
    const int64_t begin = tile.head(r) * step(0) + tile.token(r) * step(1) + first * step(2);
    if (!adds_) {
      for (int64_t s = 0; s < count; ++s) {
        store_element(sums_.data, sums_.dtype, begin + s * step(2), ds[s]);
      }
      continue;
    }
    auto* const to = static_cast<float*>(sums_.data) + begin;
    for (uint64_t seen = visible[r]; seen != 0; seen &= seen - 1) {
      const int s = std::countr_zero(seen);
      to[s * step(2)] += ds[s];
    }
  }
}

void BiasSums::write(int64_t row) const {
  if (sums_.data == dbias_.data) return;
  const auto* const from = static_cast<const float*>(sums_.data) + row_begin(sums_, row);
  for (int64_t s = 0; s < sums_.shape[2]; ++s) {
    store_element(dbias_.data, dbias_.dtype, row_begin(dbias_, row) + s * dbias_.strides[2],
                  from[s]);
  }
}

}  // namespace gqa
