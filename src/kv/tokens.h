// Tokens into the pages of a layer, and out again.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gqa/view.h"
#include "kernels/context.h"
#include "kv/pages.h"

namespace gqa {

/// What write_tokens() works in, taken apart from it so that it can't fail. Throws Error
/// (resources).
std::byte* write_scratch(Context::Impl& context, const detail::KvLayer& layer);

/// Writes k [n, kv_heads, head_dim] and v [n, kv_heads, v_head_dim] behind the layer's last token,
/// into pages that it holds alone, and counts them.
void write_tokens(Context::Impl& context, detail::KvLayer& layer, const AnyView<3>& k,
                  const AnyView<3>& v, std::byte* scratch);

/// Copies tokens [begin, begin + n), whose pages the layer holds, out as f32: k [n, kv_heads,
/// head_dim], v [n, kv_heads, v_head_dim].
void read_tokens(const detail::KvLayer& layer, int64_t begin, int64_t n, float* k, float* v);

}  // namespace gqa
