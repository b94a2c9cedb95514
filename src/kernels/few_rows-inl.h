// Per-target: dense products with few rows, bound by reading the weights. Included once per
// instruction set, after codec-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// The last `n` elements (fewer than a vector) at p, zeros behind them.
template <typename T>
HWY_INLINE VF LoadTail(F32 d, const T* p, int64_t n) {
  HWY_ALIGN float lanes[hn::MaxLanes(F32())] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = OneAsF32(p + i);
  return hn::Load(d, lanes);
}

/// R rows of x times O rows of w: each of the R * O sums is one chain over vectors of inputs.
template <int R, int O, typename T>
HWY_INLINE void Dots(const T* w, int64_t in, const float* x, int64_t x_stride, float* y,
                     int64_t y_stride) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VF sum[R][O];
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int o = 0; o < O; ++o) sum[r][o] = hn::Zero(d);
  }
  const auto step = [&](int64_t i, int64_t n) HWY_ATTR {
    VF weights[O];
    HWY_UNROLL(4)
    for (int o = 0; o < O; ++o) {
      weights[o] = n == lanes ? LoadAsF32(d, w + o * in + i) : LoadTail(d, w + o * in + i, n);
    }
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      const float* p = x + r * x_stride + i;
      const VF input = n == lanes ? hn::LoadU(d, p) : LoadTail(d, p, n);
      HWY_UNROLL(4)
      for (int o = 0; o < O; ++o) sum[r][o] = hn::MulAdd(input, weights[o], sum[r][o]);
    }
  };
  int64_t i = 0;
  for (; i + lanes <= in; i += lanes) step(i, lanes);
  if (i < in) step(i, in - i);
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int o = 0; o < O; ++o) y[r * y_stride + o] = hn::GetLane(hn::SumOfLanes(d, sum[r][o]));
  }
}

template <int R, typename T>
void DotRows(const T* w, int64_t in, int64_t begin, int64_t end, const float* x, int64_t x_stride,
             float* y, int64_t y_stride) {
  int64_t o = begin;
  for (; o + 4 <= end; o += 4) Dots<R, 4>(w + o * in, in, x, x_stride, y + o, y_stride);
  for (; o < end; ++o) Dots<R, 1>(w + o * in, in, x, x_stride, y + o, y_stride);
}

void FewRows(DType t, const void* w, int64_t in, int64_t begin, int64_t end, const float* x,
             int64_t x_stride, int64_t rows, float* y, int64_t y_stride) {
  WithElement(t, [&](auto* type) {
    const auto* weights = static_cast<decltype(type)>(w);
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
      DotRows<4>(weights, in, begin, end, x + r * x_stride, x_stride, y + r * y_stride, y_stride);
    }
    for (; r < rows; ++r) {
      DotRows<1>(weights, in, begin, end, x + r * x_stride, x_stride, y + r * y_stride, y_stride);
    }
  });
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
