// In which directions a KV head's keys lie.
#pragma once

#include "regroup/matrix.h"

namespace gqa {

/// The eigenvectors of E[k k^T] as rows, in order of falling eigenvalue: what Loki (Singhania et
/// al. 2024) scores keys in. Of a row and its negative, which serve alike, the one whose element of
/// largest magnitude (the first of such) is positive.
Matrix principal_directions(const Matrix& moments);

}  // namespace gqa
