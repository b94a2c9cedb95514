"""PyTorch: torch.nn.functional.scaled_dot_product_attention; torch_gradients.py: its backward."""

import numpy as np
import torch

import torch_gradients
from cells import HEAD_DIM, Q_HEADS
from engine import Variant

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
sdpa = torch.nn.functional.scaled_dot_product_attention


class Peer:
    def __init__(self, threads, cpus):
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        torch.set_grad_enabled(False)
        self.version = torch.__version__

    def variants(self, cell, data, count):
        """Keys and values lie [kv_heads, tokens, dim], as transformers keeps them."""
        if cell.dtype not in DTYPES:
            return
        dtype = DTYPES[cell.dtype]
        if cell.kind == "backward":
            yield from torch_gradients.variants(cell, data, dtype)
            return
        q = torch.from_numpy(data.q).to(dtype).transpose(0, 1).contiguous()
        first = tuple(torch.from_numpy(x).to(dtype) for x in (data.k, data.v))
        caches = [first] + [tuple(x.clone() for x in first) for _ in range(count - 1)]
        causal = cell.q_len > 1

        def variant(shaped_q, of_cache, **options):
            shaped = [tuple(map(of_cache, cache)) for cache in caches]

            def call(turn):
                k, v = shaped[turn % count]
                return sdpa(shaped_q, k, v, is_causal=causal, **options)

            def rows(out):
                out = out.reshape(Q_HEADS, cell.q_len, HEAD_DIM)
                return out.transpose(0, 1).double().numpy()

            return Variant(call, rows, lambda head: (data.k[head], data.v[head]))

        def stretched(x):
            return x[:, None].expand(cell.kv_heads, cell.group, cell.kv_len, HEAD_DIM)

        by_group = q.reshape(cell.kv_heads, cell.group, cell.q_len, HEAD_DIM)
        yield "enable_gqa", lambda: variant(q[None], lambda x: x[None],
                                            enable_gqa=cell.group > 1)
        if cell.group == 1:
            return
        yield "KV heads repeated before", lambda: variant(
            q[None], lambda x: x.repeat_interleave(cell.group, 0)[None])
        yield "KV heads as batch, expanded", lambda: variant(by_group, stretched)
        if not causal:
            # What the caller may do with one query token: the heads of a group as its rows.
            yield "group as rows", lambda: variant(
                q.reshape(1, cell.kv_heads, cell.group, HEAD_DIM), lambda x: x[None])
