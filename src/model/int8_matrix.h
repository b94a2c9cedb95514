// A matrix of weights as int8.
#pragma once

#include "core/aligned_buffer.h"
#include "model/linear.h"

namespace gqa {

/// Memory of a quantised matrix.
struct Int8Matrix {
  AlignedBuffer weight;  ///< int8 [out][in]
  AlignedBuffer scales;  ///< f32 [out][int8_blocks(in)]
};

/// Quantises finite weights as Model::load() says, and makes `layer` use them. The result stays
/// where it is when it is moved.
Int8Matrix quantise(const kernels::Table& kernels, Linear& layer);

}  // namespace gqa
