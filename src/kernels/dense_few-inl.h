// Per-target: dense products of one or two rows, which take the time that reading the weights
// takes. Included once per instruction set, after dense_tile-inl.h.
//
// Memory is read fastest by whoever walks through it in one line: several rows of weights at a time
// keep four streams going where the machine follows one best. So a row of weights is multiplied at
// a time, and its slices, chains that need nothing of each other, keep the multipliers busy.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// Slices of inputs that are walked together, over all rows: their inputs, 16 KiB, stay in a
/// first-level cache beside what is prefetched.
inline constexpr int kPanelSlices = 4;
/// Inputs from which on this pays: shorter rows are one stream, however many are read at a time.
inline constexpr int64_t kLongRow = 1024;

/// sum [R][U] = the lanes' products of R rows of x and U slices of a row of w, n inputs each: a
/// whole slice where U is above 1. Prefetches as many of another row.
template <int R, int U, class W>
HWY_INLINE void FewChains(const float* x, int64_t x_stride, const W& w, const W& ahead, int64_t n,
                          VF (&sum)[R][U]) {
  const F32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int u = 0; u < U; ++u) sum[r][u] = hn::Zero(d);
  }
  const auto multiply = [&](int u, const VF weight, int64_t i) HWY_ATTR {
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      sum[r][u] = hn::MulAdd(hn::LoadU(d, x + r * x_stride + i), weight, sum[r][u]);
    }
  };
  constexpr int64_t kStep = W::kFewLines * W::kLine;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    HWY_UNROLL(8)
    for (int64_t l = 0; l < kStep; l += W::kLine) {
      typename W::Line line[U];
      HWY_UNROLL(8)
      for (int u = 0; u < U; ++u) {
        ahead.Prefetch(0, u * dense_depth + i + l);
        line[u] = w.LineAt(d, u * dense_depth + i + l);
      }
      HWY_UNROLL(4)
      for (int64_t v = 0; v < W::kLine; v += lanes) {
        HWY_UNROLL(8)
        for (int u = 0; u < U; ++u) multiply(u, line[u].Load(d, v), u * dense_depth + i + l + v);
      }
    }
  }
  if constexpr (U == 1) {
    for (; i + lanes <= n; i += lanes) multiply(0, w.Load(d, 0, i), i);
    if (i >= n) return;
    const VF weight = w.Tail(d, 0, i, n - i);
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      sum[r][0] = hn::MulAdd(LoadTail(d, x + r * x_stride + i, n - i), weight, sum[r][0]);
    }
  }
}

/// The sums of the lanes of a panel: of slices, rows of x, 4 rows of w.
template <int R>
using PanelSums = float[kPanelSlices / R][R][4][hn::MaxLanes(F32())];

/// sums [..][..][k] = a row of w, n inputs of it, with R rows of x.
template <int R, class W>
HWY_INLINE void FewRow(const float* x, int64_t x_stride, const W& w, const W& ahead, int64_t n,
                       int64_t k, PanelSums<R>& sums) {
  const auto chains = [&](int64_t i, int64_t count, auto width) HWY_ATTR {
    constexpr int U = decltype(width)::value;
    VF sum[R][U];
    FewChains<R, U>(x + i, x_stride, w.At(0, i), ahead.At(0, i), count, sum);
    HWY_UNROLL(8)
    for (int u = 0; u < U; ++u) {
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) hn::Store(sum[r][u], F32(), sums[i / dense_depth + u][r][k]);
    }
  };
  constexpr int64_t kWhole = W::kFewSlices * dense_depth;
  int64_t i = 0;
  for (; i + kWhole <= n; i += kWhole) {
    chains(i, dense_depth, std::integral_constant<int, W::kFewSlices>());
  }
  for (; i < n; i += dense_depth) {
    chains(i, n - i < dense_depth ? n - i : dense_depth, std::integral_constant<int, 1>());
  }
}

/// y [R][rows] (+)= the sums of n inputs, rows at most 4.
template <int R>
HWY_INLINE void PutPanel(const PanelSums<R>& sums, int64_t n, int64_t rows, bool add, float* y,
                         int64_t y_stride) {
  const F32 d;
  for (int64_t i = 0; i < n; i += dense_depth) {
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      VF sum[4];
      HWY_UNROLL(4)
      for (int k = 0; k < 4; ++k) sum[k] = hn::Load(d, sums[i / dense_depth][r][k]);
      float* to = y + r * y_stride;
      if (rows == 4) {
        PutSums<4>(d, sum, add || i > 0, to);
      } else {
        for (int64_t k = 0; k < rows; ++k) PutSums<1>(d, sum + k, add || i > 0, to + k);
      }
    }
  }
}

/// All outputs of R rows, R at most kPanelSlices.
template <int R, class W>
void DenseFew(const DenseShape& s, const W& w, int64_t begin, int64_t end, const float* x,
              float* y) {
  constexpr int64_t kPanel = kPanelSlices / R * dense_depth;
  HWY_ALIGN PanelSums<R> sums = {};
  for (int64_t first = 0; first < s.in; first += kPanel) {
    const int64_t n = s.in - first < kPanel ? s.in - first : kPanel;
    const int64_t row_bytes = n * kLineBytes / W::kLine;
    const int64_t distance = (W::kFewAhead + row_bytes - 1) / row_bytes;
    for (int64_t o = begin; o < end; o += 4) {
      const int64_t rows = end - o < 4 ? end - o : 4;
      for (int64_t k = 0; k < rows; ++k) {
        // The last rows' turn to the next panel costs little, and so they ask for what is there.
        const int64_t next = o + k + distance < end ? o + k + distance : o + k;
        FewRow<R>(x + first, s.x_stride, w.At(o + k, first), w.At(next, first), n, k, sums);
      }
      PutPanel<R>(sums, n, rows, first > 0, y + o, s.y_stride);
    }
  }
}

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
