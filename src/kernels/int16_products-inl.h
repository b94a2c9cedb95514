// Per-target: what int16_products.cpp defines.

// Where a multiply-add of pairs of 16-bit integers does twice the work of one of f32. AVX-512 VNNI
// does better still (vnni.h).
#undef GQA_INT16_PRODUCTS
#define GQA_INT16_PRODUCTS (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3)

#if GQA_INT16_PRODUCTS
HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// As in kernels.h.
int64_t Int16QueryBytes(KvDType t, int64_t head_dim);
void Int16PrepareQuery(KvDType t, const float* q, int64_t head_dim, float scale, void* prepared);
void Int16Score(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k,
                Range keys, float* scores, int64_t scores_row, const Ahead& next);
void Int16Accumulate(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim,
                     float* acc, int64_t acc_row);

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
