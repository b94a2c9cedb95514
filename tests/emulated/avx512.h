// AVX-512 in software: what Intel's Intrinsics Guide says of those that the kernels use, under
// their names. In a namespace, where they hide the compiler's. All are inlined: passed to a
// function, such vectors would want a processor that has them.
#pragma once

#include <immintrin.h>

#include <hwy/base.h>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#pragma GCC diagnostic ignored "-Wpsabi"

// Where compilers have macros instead.
#undef _mm512_cmp_ps_mask
#undef _mm512_cmplt_epu16_mask
#undef _mm512_fpclass_ps_mask
#undef _mm512_slli_epi32
#undef _mm512_srai_epi16
#undef _mm512_srli_epi16

HWY_PUSH_ATTRIBUTES("avx2,fma")
namespace gqa::kernels::emulated_avx512 {

inline constexpr bool emulates = true;

#define GQA_EMULATED [[gnu::always_inline]] inline

// A vector as an array of elements.

template <typename T>
struct Elements {
  static constexpr int count = 64 / sizeof(T);
  T at[count];

  template <typename V>
  [[gnu::always_inline]] explicit Elements(V v) {
    static_assert(sizeof v == sizeof at);
    std::memcpy(at, &v, sizeof at);
  }
  template <typename V>
  [[gnu::always_inline]] V as() const {
    V v;
    std::memcpy(&v, at, sizeof v);
    return v;
  }
};

/// f(a's element), f(a's element, b's) and so on, of each.
template <typename T, typename V, typename F, typename... More>
GQA_EMULATED V each(F f, V first, More... more) {
  Elements<T> result(first);
  for (int i = 0; i < Elements<T>::count; ++i) {
    result.at[i] = static_cast<T>(f(result.at[i], Elements<T>(more).at[i]...));
  }
  return result.template as<V>();
}

template <typename T>
GQA_EMULATED __m512i all(T x) {
  return each<T>([x](T) { return x; }, __m512i{});
}

GQA_EMULATED bool is_set(uint64_t mask, int i) { return (mask >> i & 1) != 0; }

/// The elements whose bit is set, 0 elsewhere.
template <typename T, typename V>
GQA_EMULATED V masked(uint64_t mask, V v) {
  Elements<T> result(v);
  for (int i = 0; i < Elements<T>::count; ++i) {
    if (!is_set(mask, i)) result.at[i] = T{};
  }
  return result.template as<V>();
}

/// A bit for each element: f(a's, b's).
template <typename T, typename V, typename F>
GQA_EMULATED uint32_t bits_of(F f, V a, V b) {
  const Elements<T> x(a), y(b);
  uint32_t m = 0;
  for (int i = 0; i < Elements<T>::count; ++i) {
    m |= static_cast<uint32_t>(f(x.at[i], y.at[i])) << i;
  }
  return m;
}

/// As the instructions do: the second operand, if one is NaN.
GQA_EMULATED float larger_of(float a, float b) { return a > b ? a : b; }

/// All elements put together, the upper half with the lower one first, and so on.
template <typename T, typename V, typename F>
GQA_EMULATED T reduce(F f, V v) {
  Elements<T> all(v);
  for (int half = Elements<T>::count / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) all.at[i] = static_cast<T>(f(all.at[half + i], all.at[i]));
  }
  return all.at[0];
}

/// In each 16 bytes: elements of `a`, then of b, in half their size, as near as [least, most] has.
template <typename From, typename To>
GQA_EMULATED __m512i packed(__m512i a, __m512i b, From least, From most) {
  constexpr int half = 16 / sizeof(From);
  const Elements<From> from[2] = {Elements<From>(a), Elements<From>(b)};
  Elements<To> to(a);
  for (int i = 0; i < Elements<To>::count; ++i) {
    const From x = from[i / half % 2].at[i / (2 * half) * half + i % half];
    to.at[i] = static_cast<To>(x < least ? least : x > most ? most : x);
  }
  return to.template as<__m512i>();
}

template <typename V>
GQA_EMULATED V loaded(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

/// Reads no element whose bit is not set.
template <typename V>
GQA_EMULATED V loaded_words(uint64_t mask, const void* p) {
  Elements<uint32_t> result(V{});
  for (int i = 0; i < 16; ++i) {
    if (is_set(mask, i)) {
      std::memcpy(&result.at[i], static_cast<const std::byte*>(p) + 4 * i, sizeof result.at[i]);
    }
  }
  return result.template as<V>();
}

// Memory and bits.

GQA_EMULATED __m512 _mm512_loadu_ps(const void* p) { return loaded<__m512>(p); }
GQA_EMULATED __m512i _mm512_loadu_si512(const void* p) { return loaded<__m512i>(p); }
GQA_EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 m, const void* p) {
  return loaded_words<__m512>(m, p);
}
GQA_EMULATED __m512i _mm512_maskz_loadu_epi32(__mmask16 m, const void* p) {
  return loaded_words<__m512i>(m, p);
}
GQA_EMULATED void _mm512_storeu_ps(void* p, __m512 v) { std::memcpy(p, &v, sizeof v); }
GQA_EMULATED void _mm512_storeu_si512(void* p, __m512i v) { std::memcpy(p, &v, sizeof v); }
GQA_EMULATED __m512i _mm512_castps_si512(__m512 v) { return std::bit_cast<__m512i>(v); }
GQA_EMULATED __m512 _mm512_castsi512_ps(__m512i v) { return std::bit_cast<__m512>(v); }
GQA_EMULATED __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
GQA_EMULATED __m512i _mm512_xor_si512(__m512i a, __m512i b) { return a ^ b; }

// f32.

GQA_EMULATED __m512 _mm512_setzero_ps() { return __m512{}; }
GQA_EMULATED __m512 _mm512_set1_ps(float x) {
  return each<float>([x](float) { return x; }, __m512{});
}
GQA_EMULATED __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
GQA_EMULATED __m512 _mm512_sub_ps(__m512 a, __m512 b) { return a - b; }
GQA_EMULATED __m512 _mm512_mul_ps(__m512 a, __m512 b) { return a * b; }
GQA_EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return each<float>([](float x, float y, float z) { return std::fma(x, y, z); }, a, b, c);
}
GQA_EMULATED __m512 _mm512_fmsub_ps(__m512 a, __m512 b, __m512 c) {
  return _mm512_fmadd_ps(a, b, -c);
}
GQA_EMULATED __m512 _mm512_max_ps(__m512 a, __m512 b) { return each<float>(larger_of, a, b); }
GQA_EMULATED __m512 _mm512_mask_max_ps(__m512 other, __mmask16 m, __m512 a, __m512 b) {
  const Elements<float> largest(_mm512_max_ps(a, b));
  Elements<float> result(other);
  for (int i = 0; i < 16; ++i) {
    if (is_set(m, i)) result.at[i] = largest.at[i];
  }
  return result.as<__m512>();
}
GQA_EMULATED __m512 _mm512_maskz_mov_ps(__mmask16 m, __m512 a) { return masked<float>(m, a); }
GQA_EMULATED __m512 _mm512_maskz_mul_ps(__mmask16 m, __m512 a, __m512 b) {
  return masked<float>(m, a * b);
}
GQA_EMULATED float _mm512_reduce_max_ps(__m512 v) { return reduce<float>(larger_of, v); }
GQA_EMULATED float _mm512_reduce_add_ps(__m512 v) {
  return reduce<float>([](float a, float b) { return a + b; }, v);
}
/// Of all comparisons the one that is used: not less, or NaN.
GQA_EMULATED __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int /*_CMP_NLT_UQ*/) {
  return static_cast<__mmask16>(bits_of<float>([](float x, float y) { return !(x < y); }, a, b));
}
/// Of all classes those that are used: NaN and infinities.
GQA_EMULATED __mmask16 _mm512_fpclass_ps_mask(__m512 a, int /*0x99*/) {
  return static_cast<__mmask16>(
      bits_of<float>([](float x, float) { return !std::isfinite(x); }, a, a));
}

// Integers. They wrap.

GQA_EMULATED __m512i _mm512_setzero_si512() { return __m512i{}; }
GQA_EMULATED __m512i _mm512_set1_epi8(char x) { return all<char>(x); }
GQA_EMULATED __m512i _mm512_set1_epi16(short x) { return all<short>(x); }
GQA_EMULATED __m512i _mm512_set1_epi32(int x) { return all<int>(x); }
template <typename... Ints>
GQA_EMULATED __m512i _mm512_set_epi32(Ints... from_the_last) {
  const int elements[] = {from_the_last...};
  Elements<int> result(__m512i{});
  for (int i = 0; i < 16; ++i) result.at[i] = elements[15 - i];
  return result.as<__m512i>();
}
GQA_EMULATED __m512i _mm512_add_epi16(__m512i a, __m512i b) {
  return each<uint16_t>([](uint16_t x, uint16_t y) { return x + y; }, a, b);
}
GQA_EMULATED __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return each<uint32_t>([](uint32_t x, uint32_t y) { return x + y; }, a, b);
}
GQA_EMULATED __m512i _mm512_sub_epi8(__m512i a, __m512i b) {
  return each<uint8_t>([](uint8_t x, uint8_t y) { return x - y; }, a, b);
}
GQA_EMULATED __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
  return each<uint32_t>([](uint32_t x, uint32_t y) { return x - y; }, a, b);
}
GQA_EMULATED __m512i _mm512_max_epi32(__m512i a, __m512i b) {
  return each<int32_t>([](int32_t x, int32_t y) { return x > y ? x : y; }, a, b);
}
GQA_EMULATED __m512i _mm512_srli_epi16(__m512i a, int n) {
  return each<uint16_t>([n](uint16_t x) { return x >> n; }, a);
}
GQA_EMULATED __m512i _mm512_srai_epi16(__m512i a, int n) {
  return each<int16_t>([n](int16_t x) { return x >> n; }, a);
}
GQA_EMULATED __m512i _mm512_slli_epi32(__m512i a, int n) {
  return each<uint32_t>([n](uint32_t x) { return x << n; }, a);
}
GQA_EMULATED __m512i _mm512_maskz_mov_epi16(__mmask32 m, __m512i a) {
  return masked<uint16_t>(m, a);
}
GQA_EMULATED __mmask32 _mm512_cmplt_epu16_mask(__m512i a, __m512i b) {
  return bits_of<uint16_t>([](uint16_t x, uint16_t y) { return x < y; }, a, b);
}
GQA_EMULATED int _mm512_reduce_add_epi32(__m512i v) {
  return static_cast<int>(reduce<uint32_t>([](uint32_t a, uint32_t b) { return a + b; }, v));
}
GQA_EMULATED int _mm512_reduce_max_epi32(__m512i v) {
  return reduce<int>([](int a, int b) { return a > b ? a : b; }, v);
}
GQA_EMULATED __m512i _mm512_permutexvar_epi32(__m512i from, __m512i v) {
  const Elements<uint32_t> x(v);
  return each<uint32_t>([&x](uint32_t i) { return x.at[i % 16]; }, from);
}
GQA_EMULATED __m512i _mm512_packs_epi32(__m512i a, __m512i b) {
  return packed<int32_t, int16_t>(a, b, -32768, 32767);
}
GQA_EMULATED __m512i _mm512_packs_epi16(__m512i a, __m512i b) {
  return packed<int16_t, int8_t>(a, b, -128, 127);
}
GQA_EMULATED __m512i _mm512_packus_epi16(__m512i a, __m512i b) {
  return packed<int16_t, uint8_t>(a, b, 0, 255);
}
GQA_EMULATED __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
  const Elements<int16_t> x(a), y(b);
  Elements<int32_t> sums(a);
  for (int i = 0; i < 16; ++i) {
    sums.at[i] = x.at[2 * i] * y.at[2 * i] + x.at[2 * i + 1] * y.at[2 * i + 1];
  }
  return sums.as<__m512i>();
}
/// VPDPBUSD: sum + the dot products of each four bytes.
GQA_EMULATED void add_dots(__m512i& sum, __m512i unsigned_bytes, __m512i bytes) {
  const Elements<uint8_t> x(unsigned_bytes);
  const Elements<int8_t> y(bytes);
  Elements<int32_t> sums(sum);
  for (int i = 0; i < 16; ++i) {
    for (int j = 4 * i; j < 4 * i + 4; ++j) sums.at[i] += x.at[j] * y.at[j];
  }
  sum = sums.as<__m512i>();
}

// Between them.

GQA_EMULATED __m512 _mm512_cvtepi32_ps(__m512i v) {
  const Elements<int32_t> x(v);
  Elements<float> result(v);
  for (int i = 0; i < 16; ++i) result.at[i] = static_cast<float>(x.at[i]);
  return result.as<__m512>();
}
/// To nearest even; the least integer for what no integer is near.
GQA_EMULATED __m512i _mm512_cvtps_epi32(__m512 v) {
  const Elements<float> x(v);
  Elements<int32_t> result(v);
  for (int i = 0; i < 16; ++i) result.at[i] = _mm_cvtss_si32(_mm_set_ss(x.at[i]));
  return result.as<__m512i>();
}

#undef GQA_EMULATED

}  // namespace gqa::kernels::emulated_avx512
HWY_POP_ATTRIBUTES
