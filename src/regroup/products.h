// Products of tall matrices, shared out over threads; no bit depends on their number.
#pragma once

#include "kernels/context.h"
#include "regroup/matrix.h"

namespace gqa {

/// Work is shared out by our threads, never by BLAS: then no bit depends on how many there are. To
/// be called by whoever multiplies without the functions below, which see to it themselves.
void keep_blas_on_one_thread();

/// y [rows, out] = x [rows, in] * w [out, in]^T.
Rows times_transposed(Context::Impl& context, const RowsRef& x, const Rows& w);
/// [m, n] = a [rows, m]^T * b [rows, n].
Rows transposed_times(Context::Impl& context, const Rows& a, const Rows& b);
/// The same in double, of f32 rows: accurate sums over many tokens. Reads every row once.
Matrix gram(Context::Impl& context, const RowsRef& a, const RowsRef& b);
/// Of all elements, rows added in double.
double squared_norm(const RowsRef& rows);

}  // namespace gqa
