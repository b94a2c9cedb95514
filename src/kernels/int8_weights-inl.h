// Per-target: rows of int8 weights, as dense products read them. Included once per instruction set,
// after dense_tile-inl.h.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

/// Weights are scale * integer, rounded once to f32, a scale for each int8_block inputs of a row:
/// so a product has the bits that these weights would give it as f32. `data` points to a multiple
/// of int8_block inputs, `scales` to its block.
struct Int8Rows {
  const int8_t* data;
  const float* scales;
  int64_t in;
  int64_t blocks;  ///< of a row

  static constexpr int64_t kLine = kLineBytes;
  static constexpr int kFewRows = 1;
  static constexpr int kFewSlices = 2;
  static constexpr int kFewLines = 2;
  static constexpr int64_t kFewAhead = 8192;

  /// kLine weights of a row: all of one block.
  struct Line {
    VF scale;
    const int8_t* data;
    HWY_INLINE VF Load(F32 d, int64_t i) const { return hn::Mul(scale, LoadAsF32(d, data + i)); }
  };
  HWY_INLINE Line LineAt(F32 d, int64_t i) const { return {Scale(d, 0, i), data + i}; }

  Int8Rows At(int64_t o, int64_t i) const {
    return {data + o * in + i, scales + o * blocks + i / int8_block, in, blocks};
  }
  HWY_INLINE VF Load(F32 d, int64_t o, int64_t i) const {
    return hn::Mul(Scale(d, o, i), LoadAsF32(d, data + o * in + i));
  }
  VF Tail(F32 d, int64_t o, int64_t i, int64_t n) const {
    return hn::Mul(Scale(d, o, i), LoadTail(d, data + o * in + i, n));
  }
  HWY_INLINE void Prefetch(int64_t o, int64_t i) const { __builtin_prefetch(data + o * in + i); }

 private:
  HWY_INLINE VF Scale(F32 d, int64_t o, int64_t i) const {
    return hn::Set(d, scales[o * blocks + i / int8_block]);
  }
};

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
