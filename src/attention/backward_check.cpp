#include "attention/backward_check.h"

#include <algorithm>
#include <array>

#include "attention/check.h"
#include "core/fail.h"

namespace gqa {
namespace {

template <typename View, size_t N>
void check_shape(const ItemName& i, const char* name, const View& view,
                 const std::array<int64_t, N>& expected) {
  require(view.shape == expected, "{}: {} has shape {}, expected {}", i, name,
          shape_text(view.shape), shape_text(expected));
}

/// Elements of all kinds of rows can be counted, padding included.
void check_sizes(const ItemName& i, const ItemShape& shape) {
  constexpr int64_t padding = 4 * kernels::row_padding;
  // Of a chunk's keys, or of the rows of a tile: a few arrays of both.
  constexpr int64_t arrays = int64_t{1} << 16;
  bool fits = true;
  for (const int64_t dim : {shape.head_dim, shape.v_head_dim}) {
    const auto padded = checked_add(dim, padding);
    const auto rows = checked_mul(shape.q_len, shape.q_heads);
    fits = fits && padded && rows && checked_mul(*rows, *padded) && checked_mul(*padded, arrays) &&
           checked_mul(shape.q_heads * arrays, *padded);
  }
  require(fits, "{}: {} queries of {} heads of sizes {} and {} are too many", i, shape.q_len,
          shape.q_heads, shape.head_dim, shape.v_head_dim);
}

void check_pages(const ItemName& i, const StridedKv& kv, int32_t* pages) {
  if (kv.pages.empty()) return;
  const int64_t size = std::max<int64_t>(1, kv.k.shape[1]);
  const int64_t begin = kv.first_key / size;
  const int64_t end = std::max(begin, ceil_div(kv.len, size));
  int32_t* const last = std::copy(kv.pages.begin() + begin, kv.pages.begin() + end, pages);
  std::sort(pages, last);
  const int32_t* const twice = std::adjacent_find(pages, last);
  require(twice == last, "{}: page {} is in the page table twice, expected once", i,
          twice == last ? 0 : *twice);
}

void check_bias_gradient(const ItemName& i, const AttendBackwardItem& item) {
  if (!item.dbias.data) return;
  require(item.forward.bias.data != nullptr, "{}: dbias without a bias", i);
  check_shape(i, "dbias", item.dbias, item.forward.bias.shape);
}

}  // namespace

ItemShape check_backward_item(const ItemName& i, const AttendBackwardItem& item,
                              const AttendOptions& options, int32_t* pages) {
  const auto* kv = std::get_if<StridedKv>(&item.forward.kv);
  require(kv != nullptr, "{}: keys and values are a cache's, expected strided arrays", i);
  const ItemShape shape = check_item(i, item.forward, options);
  require(item.forward.lse.data != nullptr || shape.q_len == 0,
          "{}: lse is missing: attend() gives it", i);
  require(item.forward.out.data != nullptr || shape.q_len == 0, "{}: out is missing", i);
  const std::array<int64_t, 3> out{shape.q_len, shape.q_heads, shape.v_head_dim};
  check_shape(i, "d_out", item.d_out, out);
  require(item.d_out.data != nullptr || shape.q_len == 0, "{}: d_out is missing", i);
  if (item.dq.data) check_shape(i, "dq", item.dq, item.forward.q.shape);
  if (item.dk.data) check_shape(i, "dk", item.dk, kv->k.shape);
  if (item.dv.data) check_shape(i, "dv", item.dv, kv->v.shape);
  check_bias_gradient(i, item);
  check_sizes(i, shape);
  check_pages(i, *kv, pages);
  return shape;
}

void check_dsinks(std::span<const ItemShape> shapes, const AttendOptions& options,
                  std::span<const float> dsinks) {
  if (dsinks.empty()) return;
  require(!options.sinks.empty(), "attend_backward: dsinks without sinks");
  require(dsinks.size() == options.sinks.size(),
          "attend_backward: dsinks has {} entries, sinks has {}", dsinks.size(),
          options.sinks.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    require(std::ssize(dsinks) == shapes[i].q_heads, "{}: dsinks has {} entries for {} query heads",
            ItemName{"attend_backward", i}, dsinks.size(), shapes[i].q_heads);
  }
}

}  // namespace gqa
