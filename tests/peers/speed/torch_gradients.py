"""PyTorch: the backward of scaled_dot_product_attention, by autograd, to queries, keys and values.

The forward runs once, before; its graph is kept. (FlexAttention has no backward on CPUs.)
"""

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cells import HEAD_DIM, Q_HEADS
from engine import Unsupported, Variant

sdpa = torch.nn.functional.scaled_dot_product_attention


class Ways:
    """How a caller may write attention of q [1, heads, tokens, dim] to k and v of fewer heads."""

    def __init__(self, cell):
        self.cell = cell

    def enable_gqa(self, q, k, v):
        return sdpa(q, k, v, is_causal=True, enable_gqa=self.cell.group > 1)

    def repeated(self, q, k, v):
        k, v = (x.repeat_interleave(self.cell.group, 1) for x in (k, v))
        return sdpa(q, k, v, is_causal=True)

    def expanded(self, q, k, v):
        """KV heads as batch."""
        shape = self.cell.kv_heads, self.cell.group, self.cell.q_len, HEAD_DIM
        k, v = (x[0][:, None].expand(shape) for x in (k, v))
        return sdpa(q.reshape(shape), k, v, is_causal=True).reshape(q.shape)

    def matrices(self, q, k, v):
        with sdpa_kernel(SDPBackend.MATH):
            return self.enable_gqa(q, k, v)

    def in_f32(self, q, k, v):
        return self.enable_gqa(q.float(), k.float(), v.float()).to(q.dtype)


class Arrays:
    """Of a cell, laid out [heads, tokens, dim] or, as projections leave them, tokens first."""

    def __init__(self, data, dtype, tokens_first):
        self.dtype = dtype
        self.tokens_first = tokens_first
        self.d_out = self.laid_out(data.d_out)
        self.inputs = [self.laid_out(x).requires_grad_()
                       for x in (data.q, data.k.transpose(1, 0, 2), data.v.transpose(1, 0, 2))]

    def laid_out(self, x):
        """x is [tokens, heads, dim]."""
        x = torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)[None].transpose(1, 2)
        return x if self.tokens_first else x.contiguous()


def rows(gradients):
    dq, dk, dv = (x[0].double().numpy() for x in gradients)
    return {"dq": dq.transpose(1, 0, 2), "dk": dk, "dv": dv}


def variant(way, arrays):
    try:
        with torch.enable_grad():
            out = way(*arrays.inputs)
    except RuntimeError as problem:  # too little memory for whole matrices, for one
        raise Unsupported(str(problem).splitlines()[0]) from problem
    assert out.shape[1] == Q_HEADS

    def call(_):
        return torch.autograd.grad(out, arrays.inputs, arrays.d_out, retain_graph=True)

    return Variant(call, rows)


def variants(cell, data, dtype):
    """What is fast first: engine.py gives up early on what is much slower."""
    ways = Ways(cell)

    def asked(name, way, tokens_first):
        layout = "tokens first" if tokens_first else "heads first"
        return (f"{name}, {layout}",
                lambda: variant(way, Arrays(data, dtype, tokens_first)))

    for tokens_first in False, True:
        if dtype != torch.float32:
            yield asked("converted to f32 and back", ways.in_f32, tokens_first)
        if tokens_first and dtype == torch.float16:
            break  # products of f16 take tens of seconds; one layout shows it
        yield asked("enable_gqa", ways.enable_gqa, tokens_first)
        if cell.group > 1:
            yield asked("KV heads repeated", ways.repeated, tokens_first)
            yield asked("KV heads as batch, expanded", ways.expanded, tokens_first)
    yield asked("whole matrices", ways.matrices, False)
