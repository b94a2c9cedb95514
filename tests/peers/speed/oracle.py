"""The data of a cell, and attention in double precision on a few heads and rows of it.

Speed means nothing unless the same thing is computed, so every peer's output is held against this
before it is timed: scale, head mapping, causal edge, the first and the last key.
"""

import dataclasses

import numpy as np

from cells import HEAD_DIM, Q_HEADS

# Of the norm of a row of output; a wrong edge, head or scale changes 0.2 of it and more. Peers
# round weights, sums of f16 values, and queries to int8 where keys are quantised. Of a row of a
# gradient (gradients.py says what it is a share of), where they round scores' gradients, too.
TOLERANCE = {"f32": 1e-4, "f16": 5e-2, "bf16": 5e-2, "int8": 5e-2, "int4": 5e-2}


@dataclasses.dataclass
class Data:
    """In f32, but queries (and keys and values, unless quantised) are rounded to their type."""

    q: np.ndarray  # [q_len, Q_HEADS, HEAD_DIM]
    k: np.ndarray  # [kv_heads, kv_len, HEAD_DIM]
    v: np.ndarray  # as k
    d_out: np.ndarray | None = None  # as q; what the backward starts from


def bf16_bits(x):
    """Bits of bf16, rounded to nearest even, of a finite f32 array."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def rounded(x, dtype):
    if dtype == "f16":
        return x.astype(np.float16).astype(np.float32)
    if dtype == "bf16":
        return (bf16_bits(x).astype(np.uint32) << 16).view(np.float32)
    return x


def draw(cell):
    """Random; a decoding query gets about half of its weight from the first and the last key, so
    that dropping or shifting one of thousands shows."""
    random = np.random.default_rng(1)
    shape = (cell.kv_heads, cell.kv_len, HEAD_DIM)
    q = random.standard_normal((cell.q_len, Q_HEADS, HEAD_DIM), np.float32)
    k = random.standard_normal(shape, np.float32)
    v = random.standard_normal(shape, np.float32)
    if cell.q_len == 1:
        of_group = q[0].reshape(cell.kv_heads, cell.group, HEAD_DIM).sum(1)
        k[:, 0] = k[:, -1] = 0.9 * of_group
    d_out = None
    if cell.kind == "backward":
        d_out = rounded(random.standard_normal(q.shape, np.float32), cell.dtype)
    return Data(rounded(q, cell.q_dtype), rounded(k, cell.dtype), rounded(v, cell.dtype), d_out)


def attend(q, k, v):
    """One row of output: q [d], k and v [keys, d]."""
    scores = k.astype(np.float64) @ q.astype(np.float64) / np.sqrt(HEAD_DIM)
    weights = np.exp(scores - scores.max())
    return weights @ v.astype(np.float64) / weights.sum()


def worst_error(cell, q, stored, out):
    """Over some heads and positions, of the norm of what is expected. `stored(kv_head)` returns the
    keys and values that the peer holds; `out` is as q."""
    worst = 0.0
    for head in {0, cell.group - 1, cell.group % Q_HEADS, Q_HEADS - 1}:
        k, v = stored(head // cell.group)
        for row in {0, cell.q_len // 3, cell.q_len - 1}:
            visible = cell.kv_len - cell.q_len + row + 1
            expected = attend(q[row, head], k[:visible], v[:visible])
            difference = np.linalg.norm(out[row, head] - expected) / np.linalg.norm(expected)
            # A NaN must not pass as small.
            worst = max(worst, difference if np.isfinite(difference) else np.inf)
    return float(worst)
