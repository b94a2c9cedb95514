// Per-target: what gradient.cpp defines.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// As in kernels.h.
void Multiply(const MatrixProduct& p);
void WeighGradients(float* scores, float* dp, const uint64_t* visible, int64_t rows,
                    const float* lse, const float* delta);
void SoftcapSlope(float* ds, const float* capped, const uint64_t* visible, int64_t rows, float cap);
float Dot(const float* x, const float* y, int64_t n);
void PairRows(const float* x, int64_t x_stride, int64_t rows, int64_t columns, uint32_t* words);
void Transpose(const uint32_t* x, int64_t rows, int64_t columns, uint32_t* to);

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
