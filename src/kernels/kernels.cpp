// Compiles the kernel bodies once per instruction set and collects their tables.
#include "kernels/kernels.h"

#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/amx.h"
#include "kernels/vnni.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/kernels.cpp"
#include "kernels/targets.h"
//
#include "hwy/foreach_target.h"
// These come after foreach_target.h and in this order.
#include "kernels/load-inl.h"
//
#include "kernels/bf16-inl.h"
#include "kernels/weights-inl.h"
#include "kernels/words-inl.h"
//
#include "kernels/codec-inl.h"
#include "kernels/unpack-inl.h"
//
#include "kernels/attention-inl.h"
#include "kernels/gradient-inl.h"
#include "kernels/int16_products-inl.h"
#include "kernels/product-inl.h"
#include "kernels/quantise-inl.h"
//
#include "kernels/dense_tile-inl.h"
//
#include "kernels/dense_few-inl.h"
#include "kernels/int8_weights-inl.h"
//
#include "kernels/dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

constexpr std::string_view IsaName() {
  switch (HWY_TARGET) {
    case HWY_AVX3:
      return "avx512";
    case HWY_AVX2:
      return "avx2";
    case HWY_SSE4:
      return "sse4";
    case HWY_NEON:
      return "neon";
    default:
      return "generic";
  }
}

const Table* GetTable() {
  static constexpr Table table = {
      .isa = IsaName(),
      .panels = hn::MaxLanes(F32()) < panel_columns,
      .decode = Decode,
      .encode = Encode,
      .all_finite = AllFinite,
      .quantise = Quantise,
      .unpack = Unpack,
      .edge_rows = 2 * few_rows,
      .takes_stored = TakesStored,
      .arrange = Arrange,
      .query_bytes = QueryBytes,
      .prepare_query = PrepareQuery,
      .score = Score,
      .stretch = StretchOf,
      .scales_late = ScalesLate,
      .scale_keys = ScaleKeys,
      .softcap = Softcap,
      .subtract_distance = SubtractDistance,
      .add = Add,
      .above_minus_infinity = AboveMinusInfinity,
      .softmax = Softmax,
      .accumulate = Accumulate,
      .end_run = EndRun,
      .merge = Merge,
      .multiply = Multiply,
      .weigh_gradients = WeighGradients,
      .softcap_slope = SoftcapSlope,
      .dot = Dot,
      .multiply_pairs = nullptr,
      .pair_rows = PairRows,
      .transpose = Transpose,
      .dense = Dense,
      .dense_int8 = DenseInt8,
  };
  return &table;
}

#if GQA_INT16_PRODUCTS
const Table* GetInt16Table() {
  static const Table table = [] {
    Table changed = *GetTable();
    changed.isa = HWY_TARGET == HWY_AVX2 ? "avx2_int16" : "avx512_int16";
    changed.takes_stored = is_quantised;
    changed.query_bytes = Int16QueryBytes;
    changed.prepare_query = Int16PrepareQuery;
    changed.score = Int16Score;
    changed.accumulate = Int16Accumulate;
    return changed;
  }();
  return &table;
}
#endif

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gqa::kernels {
namespace {

struct Tables {
  std::array<const Table*, 8> list{};
  size_t count = 0;

  Tables() {
    // What the compiler may use everywhere needs no asking: Highway denies NEON to Arm processors
    // without AES, which these kernels have no use for, and warns of them.
    int64_t supported = HWY_STATIC_TARGET;
    if (HWY_TARGETS != HWY_STATIC_TARGET) supported |= hwy::SupportedTargets();
    const auto add = [&](int64_t target, const Table* table) {
      if (supported & target) list[count++] = table;
    };
#if HWY_TARGETS & HWY_AVX3
    if (supported & HWY_AVX3) {
      const Table* avx512 = N_AVX3::GetTable();
      const bool has_vnni = __builtin_cpu_supports("avx512vnni");
      const Table* vnni = has_vnni ? &hardware_avx512::vnni_table(*avx512) : nullptr;
      const Table& vectors = vnni ? *vnni : *avx512;
      const Table* int16 = vnni ? nullptr : N_AVX3::GetInt16Table();
      for (const Table* better : {hardware_avx512::amx_table(vectors), vnni, int16, avx512}) {
        if (better) list[count++] = better;
      }
    }
#endif
#if HWY_TARGETS & HWY_AVX2
    add(HWY_AVX2, N_AVX2::GetInt16Table());
    add(HWY_AVX2, N_AVX2::GetTable());
#endif
#if HWY_TARGETS & HWY_SSE4
    add(HWY_SSE4, N_SSE4::GetTable());
#endif
#if HWY_TARGETS & HWY_NEON
    add(HWY_NEON, N_NEON::GetTable());
#endif
#if HWY_TARGETS & HWY_EMU128
    add(~int64_t{0}, N_EMU128::GetTable());
#elif HWY_TARGETS & HWY_SCALAR
    add(~int64_t{0}, N_SCALAR::GetTable());
#endif
  }
};

const Tables& all_tables() {
  static const Tables tables;
  return tables;
}

}  // namespace

std::span<const Table* const> tables() { return {all_tables().list.data(), all_tables().count}; }

std::span<const Table* const> (*more_tables)() = nullptr;

}  // namespace gqa::kernels
#endif  // HWY_ONCE
