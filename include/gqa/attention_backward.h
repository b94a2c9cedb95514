// Grouped-query attention, backward.
#pragma once

#include <span>

#include "gqa/attention.h"

namespace gqa {
#pragma GCC visibility push(default)

/// One sequence: what attend() computed, and where its gradients go. They overwrite what was there.
/// A gradient whose data is null is not wanted.
struct AttendBackwardItem {
  /// As attend() had it, and with the out and lse that it gave (lse is needed; both are read only).
  /// Its keys and values are StridedKv of f32, f16 or bf16, each physical page at most once.
  AttendItem forward;
  AnyView<3> d_out;       ///< d loss / d out, [q_len, q_heads, v_head_dim]
  AnyMutView<3> dq = {};  ///< [q_len, q_heads, head_dim]
  /// [pages, page_size, kv_heads, head_dim], pages as those of forward.kv; keys [first_key, len)
  /// are written, 0 where no query sees them; other elements stay as they are.
  AnyMutView<4> dk = {};
  AnyMutView<4> dv = {};  ///< [pages, page_size, kv_heads, v_head_dim], likewise
  /// The shape of forward.bias, summed over axes that stand for all; 0 where a key is not seen.
  AnyMutView<3> dbias = {};
};

/// Gradients of attend() by recomputation: no matrix of scores is stored (Dao et al. 2022; Dao
/// 2023). With P the weights, D = rowsum(d_out * out):
///   dv = P^T d_out, summed over the group's query heads; dP = d_out v^T; dS = P (dP - D);
///   dbias = dS; through the soft cap dS (1 - tanh^2); dq = scale dS k; dk = scale dS^T q, summed
///   over the group; d sink = -sum over tokens of the sink's weight * D.
/// All masks, group and head sizes of attend(). A row that sees no key has gradients of 0.
/// Bit-identical for any number of threads and any batch mix.
///
/// Arithmetic is f32 whatever the types, with one exception: where the machine multiplies tiles of
/// bf16 (AMX), and q, k, v and d_out are all bf16, the operands of the five products are bf16, P
/// and dS rounded to it. Sums, and all that lies between the products, are f32 there, too.
///
/// dsinks: [q_heads], of options.sinks, summed over the batch; empty: not wanted.
///
/// Throws Error (usage) where shapes do not fit, naming the item.
void attend_backward(Context& context, std::span<const AttendBackwardItem> batch,
                     const AttendOptions& options = {}, std::span<float> dsinks = {});

#pragma GCC visibility pop
}  // namespace gqa
