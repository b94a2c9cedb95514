// AVX-512 in software has the processor's bits.
#include <gtest/gtest.h>

#if defined(__x86_64__)

// GCC 12 warns of its own intrinsics (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <hwy/base.h>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace gqa::kernels {

using Bytes = std::array<std::byte, 64>;

// What is compared: name, and from vectors of integers a, b and c, or of floats x, y and z, a
// vector.
#define GQA_INTEGERS(OPERATION)                                                                \
  OPERATION(and_si512, _mm512_and_si512(a, b))                                                 \
  OPERATION(xor_si512, _mm512_xor_si512(a, b))                                                 \
  OPERATION(set1_epi8, _mm512_set1_epi8(static_cast<char>(0x80)))                              \
  OPERATION(set1_epi16, _mm512_set1_epi16(-3))                                                 \
  OPERATION(set1_epi32, _mm512_set1_epi32(70'000))                                             \
  OPERATION(set_epi32, _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0)) \
  OPERATION(add_epi16, _mm512_add_epi16(a, b))                                                 \
  OPERATION(add_epi32, _mm512_add_epi32(a, b))                                                 \
  OPERATION(sub_epi8, _mm512_sub_epi8(a, b))                                                   \
  OPERATION(sub_epi32, _mm512_sub_epi32(a, b))                                                 \
  OPERATION(max_epi32, _mm512_max_epi32(a, b))                                                 \
  OPERATION(srli_epi16, _mm512_srli_epi16(a, 4))                                               \
  OPERATION(srai_epi16, _mm512_srai_epi16(a, 8))                                               \
  OPERATION(slli_epi32, _mm512_slli_epi32(a, 23))                                              \
  OPERATION(maskz_mov_epi16, _mm512_maskz_mov_epi16(0x12345678u, a))                           \
  OPERATION(cmplt_epu16, _mm512_set1_epi32(static_cast<int>(_mm512_cmplt_epu16_mask(a, b))))   \
  OPERATION(reduce_add_epi32, _mm512_set1_epi32(_mm512_reduce_add_epi32(a)))                   \
  OPERATION(reduce_max_epi32, _mm512_set1_epi32(_mm512_reduce_max_epi32(a)))                   \
  OPERATION(permutexvar_epi32, _mm512_permutexvar_epi32(a, b))                                 \
  OPERATION(packs_epi32, _mm512_packs_epi32(a, b))                                             \
  OPERATION(packs_epi16, _mm512_packs_epi16(a, b))                                             \
  OPERATION(packus_epi16, _mm512_packus_epi16(a, b))                                           \
  OPERATION(madd_epi16, _mm512_madd_epi16(a, b))                                               \
  OPERATION(maskz_loadu_epi32, _mm512_maskz_loadu_epi32(0x1357, &a))                           \
  OPERATION(cvtepi32_ps, _mm512_castps_si512(_mm512_cvtepi32_ps(a)))                           \
  OPERATION(dots, dots(a, b, c))

#define GQA_FLOATS(OPERATION)                                              \
  OPERATION(set1_ps, _mm512_set1_ps(-0.0f))                                \
  OPERATION(add_ps, _mm512_add_ps(x, y))                                   \
  OPERATION(sub_ps, _mm512_sub_ps(x, y))                                   \
  OPERATION(mul_ps, _mm512_mul_ps(x, y))                                   \
  OPERATION(fmadd_ps, _mm512_fmadd_ps(x, y, z))                            \
  OPERATION(fmsub_ps, _mm512_fmsub_ps(x, y, z))                            \
  OPERATION(max_ps, _mm512_max_ps(x, y))                                   \
  OPERATION(mask_max_ps, _mm512_mask_max_ps(z, 0x1357, x, y))              \
  OPERATION(maskz_mov_ps, _mm512_maskz_mov_ps(0x1357, x))                  \
  OPERATION(maskz_mul_ps, _mm512_maskz_mul_ps(0x1357, x, y))               \
  OPERATION(maskz_loadu_ps, _mm512_maskz_loadu_ps(0x1357, &x))             \
  OPERATION(reduce_max_ps, _mm512_set1_ps(_mm512_reduce_max_ps(x)))        \
  OPERATION(reduce_add_ps, _mm512_set1_ps(_mm512_reduce_add_ps(x)))        \
  OPERATION(cmp_ps, _mm512_set1_ps(_mm512_cmp_ps_mask(x, y, _CMP_NLT_UQ))) \
  OPERATION(fpclass_ps, _mm512_set1_ps(_mm512_fpclass_ps_mask(x, 0x99)))   \
  OPERATION(cvtps_epi32, _mm512_castsi512_ps(_mm512_cvtps_epi32(x)))

#define GQA_OF_INTEGERS(name, result)                                 \
  inline Bytes name(const Bytes& p, const Bytes& q, const Bytes& r) { \
    [[maybe_unused]] const __m512i a = _mm512_loadu_si512(p.data());  \
    [[maybe_unused]] const __m512i b = _mm512_loadu_si512(q.data());  \
    [[maybe_unused]] const __m512i c = _mm512_loadu_si512(r.data());  \
    Bytes to;                                                         \
    _mm512_storeu_si512(to.data(), result);                           \
    return to;                                                        \
  }
#define GQA_OF_FLOATS(name, result)                                   \
  inline Bytes name(const Bytes& p, const Bytes& q, const Bytes& r) { \
    [[maybe_unused]] const __m512 x = _mm512_loadu_ps(p.data());      \
    [[maybe_unused]] const __m512 y = _mm512_loadu_ps(q.data());      \
    [[maybe_unused]] const __m512 z = _mm512_loadu_ps(r.data());      \
    Bytes to;                                                         \
    _mm512_storeu_ps(to.data(), result);                              \
    return to;                                                        \
  }

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")
namespace processors {
inline __m512i dots(__m512i sum, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(sum, a, b); }
GQA_INTEGERS(GQA_OF_INTEGERS)
GQA_FLOATS(GQA_OF_FLOATS)
}  // namespace processors
HWY_POP_ATTRIBUTES

}  // namespace gqa::kernels

// Behind what the processor does: there may be macros for it, which this takes away.
#define GQA_EMULATE_AVX512 "emulated/avx512.h"
#include "kernels/avx512.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels {
namespace emulated_avx512 {
[[gnu::always_inline]] inline __m512i dots(__m512i sum, __m512i a, __m512i b) {
  add_dots(sum, a, b);
  return sum;
}
GQA_INTEGERS(GQA_OF_INTEGERS)
GQA_FLOATS(GQA_OF_FLOATS)
}  // namespace emulated_avx512
}  // namespace gqa::kernels
GQA_AFTER_AVX512()

namespace gqa::kernels {

namespace {

using Operation = Bytes (*)(const Bytes&, const Bytes&, const Bytes&);
struct Pair {
  const char* name;
  Operation processors, emulated;
};
#define GQA_PAIR(name, result) {#name, processors::name, emulated_avx512::name},
constexpr Pair integers[] = {GQA_INTEGERS(GQA_PAIR)};
constexpr Pair floats[] = {GQA_FLOATS(GQA_PAIR)};

class EmulatedAvx512 : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!__builtin_cpu_supports("avx512vnni")) GTEST_SKIP() << "no AVX-512 VNNI here";
  }
  Bytes bits() {
    Bytes bytes;
    for (std::byte& b : bytes) b = static_cast<std::byte>(random_());
    return bytes;
  }
  /// Of all sizes, and infinities; two NaNs would be told apart by their sign alone.
  Bytes numbers() {
    std::normal_distribution<float> normal;
    std::array<float, 16> x;
    for (float& f : x) {
      f = std::ldexp(normal(random_), static_cast<int>(random_() % 60) - 20);
      if (random_() % 100 == 0) f = -std::numeric_limits<float>::infinity();
    }
    Bytes bytes;
    std::memcpy(bytes.data(), x.data(), sizeof x);
    return bytes;
  }
  std::mt19937_64 random_{1};
};

TEST_F(EmulatedAvx512, HasTheBitsOfTheProcessor) {
  for (int round = 0; round < 2000; ++round) {
    const Bytes a = bits(), b = bits(), c = bits();
    for (const Pair& p : integers) ASSERT_EQ(p.processors(a, b, c), p.emulated(a, b, c)) << p.name;
    const Bytes x = numbers(), y = numbers(), z = numbers();
    for (const Pair& p : floats) ASSERT_EQ(p.processors(x, y, z), p.emulated(x, y, z)) << p.name;
  }
}

}  // namespace
}  // namespace gqa::kernels

#endif
