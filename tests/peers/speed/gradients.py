"""Gradients of causal attention in double precision, of the first and the last KV head.

Each has its group's query heads and all tokens, so that the causal edge, the head mapping, the
scale and the sum over the group all show.
"""

import numpy as np

from cells import HEAD_DIM


def weights_of(q, k):
    """Of a head's queries over its keys, [tokens, tokens]."""
    scores = q @ k.T / np.sqrt(HEAD_DIM)
    scores[np.triu_indices(len(q), 1)] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


class Sum:
    """Of products of two matrices: rows, and the norms that they would have if terms had random
    signs. Rows where terms cancel, as dq of a token that sees one key, have no norm to speak of."""

    def __init__(self):
        self.rows = self.squares = 0

    def add(self, matrix, of_terms, vectors):
        """matrix @ vectors; of_terms: the squares of what a term of matrix was made of."""
        self.rows = self.rows + matrix @ vectors
        self.squares = self.squares + of_terms @ (vectors ** 2).sum(1)

    def worst_error(self, found):
        difference = np.linalg.norm(found - self.rows, axis=1) / np.sqrt(self.squares)
        # A NaN must not pass as small.
        return float(np.where(np.isfinite(difference), difference, np.inf).max())


class Gradients:
    def __init__(self, cell, data):
        self.sums = {}  # (name, head) -> Sum
        for kv_head in {0, cell.kv_heads - 1}:
            self.add_group(cell, data, kv_head)

    def add_group(self, cell, data, kv_head):
        k, v = (x[kv_head].astype(np.float64) for x in (data.k, data.v))
        dk, dv = self.sums["dk", kv_head], self.sums["dv", kv_head] = Sum(), Sum()
        scale = HEAD_DIM ** -0.5
        for head in range(kv_head * cell.group, (kv_head + 1) * cell.group):
            q, d_out = (x[:, head].astype(np.float64) for x in (data.q, data.d_out))
            dq = self.sums["dq", head] = Sum()
            weights = weights_of(q, k)
            d_weights = d_out @ v.T
            mean = (d_out * (weights @ v)).sum(1, keepdims=True)
            d_scores = scale * weights * (d_weights - mean)
            squares = (scale * weights) ** 2 * (d_weights ** 2 + mean ** 2)
            dq.add(d_scores, squares, k)
            dk.add(d_scores.T, squares.T, q)
            dv.add(weights.T, weights.T ** 2, d_out)

    def worst_error(self, found):
        """`found`: dq as Data's q, dk and dv as its k and v, by name."""
        heads_first = found | {"dq": found["dq"].transpose(1, 0, 2)}
        return max(rows.worst_error(heads_first[name][head])
                   for (name, head), rows in self.sums.items())
