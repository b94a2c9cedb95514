// Principal directions of a set of vectors.
#pragma once

#include <cstdint>
#include <vector>

namespace gqa {

/// The `rank` directions of most energy (uncentred) of n vectors x, `stride` floats apart, [dim]
/// each: orthonormal rows [rank][dim]. By orthogonal iteration (Golub and Van Loan, 4th ed., 8.2.4)
/// in double precision, 32 times: directions of close energies may be mixed with each other, which
/// leaves the space that they span about as good.
std::vector<float> principal_directions(const float* x, int64_t n, int64_t stride, int64_t dim,
                                        int64_t rank);

}  // namespace gqa
