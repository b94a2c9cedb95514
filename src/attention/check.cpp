#include "attention/check.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "attention/visible.h"
#include "core/fail.h"
#include "kv/pages.h"

namespace gqa {
namespace {

/// Positions and sizes of a mask stay below this, so that their sums can't overflow.
constexpr int64_t far_away = int64_t{1} << 60;

/// A shape for a message, formatted only if the message is needed.
template <size_t N>
auto list(const std::array<int64_t, N>& shape) {
  return fmt::join(shape, ", ");
}

/// Keys' side of an item's shape.
struct KvShapeOf {
  const ItemName& item;
  ItemShape& shape;

  void operator()(const PackedKv& kv) const {
    const detail::KvLayer& layer = kv.layer();
    shape.kv_heads = layer.kv_heads;
    shape.head_dim = layer.head_dim;
    shape.v_head_dim = layer.v_head_dim;
    shape.keys.len = kv.len();
    shape.kv_dtype = layer.dtype;
  }

  void operator()(const StridedKv& kv) const {
    const auto& k = kv.k.shape;
    const auto& v = kv.v.shape;
    require(k[0] == v[0] && k[1] == v[1] && k[2] == v[2],
            "{}: k has shape [{}] and v [{}]: all but the last must agree", item, list(k), list(v));
    require(k[0] >= 0 && k[1] >= 0, "{}: k has shape [{}]", item, list(k));
    const int64_t page_size = std::max<int64_t>(1, k[1]);
    const int64_t pages = kv.pages.empty() ? k[0] : static_cast<int64_t>(kv.pages.size());
    require(kv.len >= 0 && (kv.len == 0 || (k[1] > 0 && ceil_div(kv.len, page_size) <= pages)),
            "{}: {} keys do not fit {} pages of {}", item, kv.len, pages, k[1]);
    require(kv.first_key >= 0 && kv.first_key <= kv.len, "{}: first_key is {}, expected 0 to {}",
            item, kv.first_key, kv.len);
    // Pages that hold no key any more may be anything.
    const int64_t end = kv.pages.empty() ? 0 : ceil_div(kv.len, page_size);
    for (int64_t i = kv.first_key / page_size; i < end; ++i) {
      const int32_t page = kv.pages[static_cast<size_t>(i)];
      require(page >= 0 && page < k[0], "{}: page {} of {}", item, page, k[0]);
    }
    shape.kv_heads = k[2];
    shape.head_dim = k[3];
    shape.v_head_dim = v[3];
    shape.keys.len = kv.len;
    shape.keys.first = kv.first_key;
  }
};

void check_groups(const ItemName& i, const ItemShape& shape) {
  const auto offsets = shape.group_offsets;
  if (offsets.empty()) {
    require(shape.kv_heads >= 1 && shape.q_heads % shape.kv_heads == 0,
            "{}: {} query heads are no multiple of {} KV heads", i, shape.q_heads, shape.kv_heads);
    return;
  }
  bool ascending = std::ssize(offsets) == shape.kv_heads + 1 && offsets.front() == 0 &&
                   offsets.back() == shape.q_heads;
  for (size_t g = 1; g < offsets.size(); ++g) ascending = ascending && offsets[g] > offsets[g - 1];
  require(ascending, "{}: group_offsets are [{}], expected {} ascending numbers from 0 to {}", i,
          fmt::join(offsets, ", "), shape.kv_heads + 1, shape.q_heads);
}

void check_outputs(const ItemName& i, const AttendItem& item, const ItemShape& shape) {
  const std::array<int64_t, 3> out{shape.q_len, shape.q_heads, shape.v_head_dim};
  require(item.out.shape == out, "{}: out has shape [{}], expected [{}]", i, list(item.out.shape),
          list(out));
  if (!item.lse.data) return;
  const std::array<int64_t, 2> lse{shape.q_len, shape.q_heads};
  require(item.lse.shape == lse && item.lse.dtype == DType::f32,
          "{}: lse has shape [{}] and type {}, expected [{}] f32", i, list(item.lse.shape),
          dtype_name(item.lse.dtype), list(lse));
}

void check_bias(const ItemName& i, const AttendItem& item, const ItemShape& shape) {
  if (!item.bias.data) return;
  const std::array<int64_t, 3> full{shape.q_heads, shape.q_len, shape.keys.len};
  for (size_t axis = 0; axis < 3; ++axis) {
    const int64_t size = item.bias.shape[axis];
    require(size == full[axis] || size == 1,
            "{}: bias has shape [{}], expected [{}], or 1 in place of any of them", i,
            list(item.bias.shape), list(full));
  }
}

void check_per_head(const ItemName& i, const char* name, std::span<const float> values,
                    int64_t q_heads) {
  require(values.empty() || std::ssize(values) == q_heads,
          "{}: {} has {} entries for {} query heads", i, name, values.size(), q_heads);
}

/// A cache may have released tokens: those must not be seen.
void check_held(const ItemName& i, const AttendItem& item, const ItemShape& shape,
                const Mask& mask) {
  const auto* kv = std::get_if<PackedKv>(&item.kv);
  if (!kv || shape.q_len == 0) return;
  const TileKeys seen(mask, shape, 0, 0, shape.q_len);
  for (const KeyRange& run : seen.runs()) {
    if (run.empty()) continue;
    for (int64_t b = run.begin / kernels::key_block; b * kernels::key_block < run.end; ++b) {
      require(kv->layer().holds(b),
              "{}: the mask sees tokens {} to {}, of which the cache has released {} "
              "to {}",
              i, run.begin, run.end - 1, b * kernels::key_block, (b + 1) * kernels::key_block - 1);
    }
  }
}

}  // namespace

void check_options(const char* call, const AttendOptions& options) {
  const Mask& mask = options.mask;
  const auto size = [&](const char* name, int64_t value) {
    require(value >= 0 && value <= far_away, "{}: {} is {}, expected 0 or more", call, name, value);
  };
  size("window", mask.window);
  size("block", mask.block);
  size("sink_tokens", mask.sink_tokens);
  require(std::isfinite(options.softcap) && options.softcap >= 0,
          "{}: softcap is {}, expected 0 or more", call, options.softcap);
  for (const float sink : options.sinks) {
    require(std::isfinite(sink) || sink < 0, "{}: a sink is {}, expected a number or -inf", call,
            sink);
  }
}

ItemShape check_item(const ItemName& i, const AttendItem& item, const AttendOptions& options) {
  ItemShape shape;
  std::visit(KvShapeOf{i, shape}, item.kv);
  const auto& q = item.q.shape;
  shape.q_len = q[0];
  shape.q_heads = q[1];
  shape.group_offsets = options.group_offsets;
  require(q[0] >= 0 && q[1] >= 1, "{}: q has shape [{}]", i, list(q));
  check_groups(i, shape);
  require(shape.head_dim >= 1 && shape.v_head_dim >= 1, "{}: head sizes {} and {}", i,
          shape.head_dim, shape.v_head_dim);
  require(q[2] == shape.head_dim, "{}: q has head size {}, k has {}", i, q[2], shape.head_dim);
  check_outputs(i, item, shape);
  check_bias(i, item, shape);
  check_per_head(i, "alibi", options.alibi, shape.q_heads);
  check_per_head(i, "sinks", options.sinks, shape.q_heads);
  require(item.prefix >= 0, "{}: prefix is {}, expected 0 or more", i, item.prefix);
  shape.keys.prefix = item.prefix;
  shape.q_start = item.q_start.value_or(shape.keys.len - shape.q_len);
  require(shape.q_start >= -far_away && shape.q_start <= far_away, "{}: q_start is {}", i,
          shape.q_start);
  check_held(i, item, shape, options.mask);
  shape.selected = item.selected;
  return shape;
}

}  // namespace gqa
