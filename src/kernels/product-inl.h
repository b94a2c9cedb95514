// Per-target: what product.cpp defines.

HWY_BEFORE_NAMESPACE();
namespace gqa::kernels::HWY_NAMESPACE {

// As in kernels.h.
bool TakesStored(KvDType t);
BlockWords Arrange(KvDType t, const void* words, const WordOrder& order, int64_t depth,
                   int64_t columns, int64_t rows, void* scratch);
int64_t QueryBytes(KvDType t, int64_t head_dim);
void PrepareQuery(KvDType t, const float* q, int64_t head_dim, float scale, void* prepared);
void Score(const void* queries, int64_t rows, int64_t head_dim, const BlockWords& k, Range keys,
           float* scores, int64_t scores_row, const Ahead& next);
void Accumulate(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim, float* acc,
                int64_t acc_row);
void EndRun();

}  // namespace gqa::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
