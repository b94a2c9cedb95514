"""Gradients of attention, against torch's autograd in double precision.

GQA_BUILD names the build folder that holds `attention_gradients`. Attention is written here as the
formula says, every KV head repeated for its query heads; torch derives the rest.
"""

import os
import pathlib
import struct
import subprocess

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("GQA_BUILD", ROOT / "build" / "release"))
CONFIGURATIONS = 3000
U = 2.0**-24
torch.set_num_threads(1)


class Random:
    """Draws in float32, which the program gets, and hands out double precision."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, low, high):
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def pick(self, *values):
        return values[self.integer(0, len(values) - 1)]

    def normal(self, *shape, scale=1.0):
        return (scale * torch.randn(shape, generator=self.generator)).double()


class Problem:
    """One configuration with its inputs."""

    def __init__(self, random):
        self.kv_heads = random.integer(1, 4)
        if random.integer(0, 2):
            self.sizes = [random.pick(1, 2, 3, 4, 7, 8)] * self.kv_heads
        else:
            self.sizes = [random.integer(1, 5) for _ in range(self.kv_heads)]
        self.q_heads = sum(self.sizes)
        self.q_len = random.pick(1, 1, 2, random.integer(3, 20))
        self.kv_len = random.pick(1, 64, 65, random.integer(2, 150), random.integer(150, 300))
        self.head_dim = random.pick(random.integer(1, 20), 32, 64)
        self.v_head_dim = random.pick(self.head_dim, random.integer(1, 40))
        self.q_start = random.pick(self.kv_len - self.q_len, random.integer(-3, self.kv_len + 3))
        self.prefix = random.pick(0, 0, random.integer(1, self.kv_len))
        self.causal = random.pick(True, True, False)
        self.window = random.pick(0, 0, random.integer(1, self.kv_len + 5))
        self.block = random.pick(0, 0, random.integer(1, self.kv_len + 5))
        self.sink_tokens = random.pick(0, 0, random.integer(1, 5))
        self.scale = struct.unpack("f", struct.pack("f", self.head_dim**-0.5))[0]
        self.softcap = random.pick(0.0, 0.0, 1.5, 30.0)
        peak = random.pick(0.5, 1.0, 4.0)
        self.q = random.normal(self.q_len, self.q_heads, self.head_dim, scale=peak)
        self.k = random.normal(self.kv_len, self.kv_heads, self.head_dim)
        self.v = random.normal(self.kv_len, self.kv_heads, self.v_head_dim)
        self.d_out = random.normal(self.q_len, self.q_heads, self.v_head_dim)
        self.bias = self.alibi = self.sinks = None
        if random.integer(0, 1):
            full = self.q_heads, self.q_len, self.kv_len
            self.bias = random.normal(*(random.pick(n, n, 1) for n in full))
            self.bias[random.normal(*self.bias.shape) > 1] = -torch.inf
        if random.integer(0, 1):
            self.alibi = random.normal(self.q_heads, scale=0.1)
        if random.integer(0, 1):
            self.sinks = random.normal(self.q_heads, scale=2)

    def pack(self):
        present = [[] if x is None else list(x.shape) for x in (self.alibi, self.sinks)]
        counts = [shape[0] if shape else 0 for shape in present]
        offsets = [sum(self.sizes[:g]) for g in range(self.kv_heads + 1)]
        if len(set(self.sizes)) == 1:
            offsets = []
        numbers = struct.pack(
            "18q2f",
            *(self.q_len, self.q_heads, self.kv_heads, self.head_dim, self.v_head_dim, self.kv_len),
            *(self.q_start, self.prefix, self.causal, self.window, self.block, self.sink_tokens),
            *((0, 0, 0) if self.bias is None else self.bias.shape),
            *(*counts, len(offsets), self.scale, self.softcap),
        )
        arrays = [self.q, self.k, self.v, self.d_out, self.bias, self.alibi, self.sinks]
        data = [x.float().numpy().tobytes() for x in arrays if x is not None]
        return b"".join([numbers, *data, struct.pack(f"{len(offsets)}i", *offsets)])

    def seen(self):
        """[q_heads, q_len, kv_len]: which keys each query sees."""
        p = torch.arange(self.q_len)[:, None] + self.q_start
        s = torch.arange(self.kv_len)[None]
        near = torch.ones(self.q_len, self.kv_len, dtype=torch.bool)
        if self.window:
            near &= (p - s).abs() < self.window
        if self.block:
            near &= p.div(self.block, rounding_mode="floor") == s // self.block
        near |= s < self.sink_tokens
        if self.causal:
            near &= s <= p
        seen = (near | (s < self.prefix)).expand(self.q_heads, -1, -1)
        return seen if self.bias is None else seen & (self.bias > -torch.inf)


class Attention:
    """What torch computes: outputs, weights, and by backward() gradients."""

    def __init__(self, p):
        self.p = p
        self.inputs = [x for x in (p.q, p.k, p.v, p.bias, p.sinks) if x is not None]
        for x in self.inputs:
            x.requires_grad_()
        repeats = torch.tensor(p.sizes)
        self.q = p.q.transpose(0, 1)
        self.k = p.k.repeat_interleave(repeats, dim=1).transpose(0, 1)
        self.v = p.v.repeat_interleave(repeats, dim=1).transpose(0, 1)
        seen = p.seen()
        self.raw = p.scale * self.q @ self.k.transpose(1, 2)
        scores = p.softcap * torch.tanh(self.raw / p.softcap) if p.softcap else self.raw
        self.added = torch.zeros(())
        if p.bias is not None:
            bias = p.bias.masked_fill(p.bias == -torch.inf, 0)
            scores = scores + bias
            self.added = self.added + bias.detach().abs()
        if p.alibi is not None:
            distance = (torch.arange(p.q_len)[:, None] + p.q_start - torch.arange(p.kv_len)).abs()
            scores = scores - p.alibi[:, None, None] * distance
            self.added = self.added + p.alibi.abs()[:, None, None] * distance
        # A row that sees no key: no weights, and no gradients through them.
        row_sees = seen.any(-1, keepdim=True)
        scores = scores.masked_fill(~seen & row_sees, -torch.inf).masked_fill(~row_sees, 0)
        self.lse = self.total = scores.logsumexp(-1, keepdim=True)
        if p.sinks is not None:
            self.total = torch.logaddexp(self.lse, p.sinks[:, None, None].expand_as(self.lse))
        self.seen = seen
        self.weights = (scores - self.total).exp().masked_fill(~row_sees, 0)
        self.out = self.weights @ self.v

    def gradients(self):
        self.out.backward(self.p.d_out.transpose(0, 1))
        return [x.grad for x in self.inputs]

    @torch.no_grad()
    def bounds(self):
        """How far single precision may stray: what tests/support/attention_bound.h and
        backward_bound.h derive, for whole matrices."""
        p, seen, weights = self.p, self.seen, self.weights
        q, k, v, d_out = self.q.abs(), self.k.abs(), self.v.abs(), p.d_out.transpose(0, 1)
        raw = (p.scale * q @ k.transpose(1, 2) * seen).amax(-1, keepdim=True)
        added = (self.added * seen).amax(-1, keepdim=True)
        size = raw + added
        score = (2 * p.head_dim + 2 + (11 if p.softcap else 0)) * raw + 3 * size * (added > 0)
        logit = torch.zeros(()) if p.sinks is None else p.sinks.abs()[:, None, None]
        ends = 1 + self.lse.abs() + logit
        # Of attend(): weights, outputs, LSE.
        weight = (score + 6 * size + 2 + 3 * (p.kv_len / 64 + 4)) * U
        chain = 2 * (min(p.kv_len, 1024) + 4) * U
        sink = 0 if p.sinks is None else (2 * (logit + size) + 8) * U
        out = 1.01 * (2 * weight + 2 * chain + sink + 4 * U) * (weights @ v) + p.kv_len * 1e-37
        lse = 1.01 * (weight + chain + 2 * U * (1 + size + self.lse.abs()))
        # Of the backward: weights, D, dP, dS, the soft cap's slope.
        total = lse + 4 * U * ends
        weight = torch.expm1(score * U + total + 3 * U * (size + ends) + 4 * U)
        d = (d_out * self.out).sum(-1, keepdim=True)
        absolute = d_out.abs()
        d_error = (absolute * out).sum(-1, keepdim=True)
        d_error += (p.v_head_dim + 1) * U * (absolute * (self.out.abs() + out)).sum(-1, keepdim=True)
        gap = (d_out @ self.v.transpose(1, 2) - d).abs()
        gap_error = (p.v_head_dim + 1) * U * absolute @ v.transpose(1, 2) + d_error + U * gap
        ds = weights * gap
        ds_error = weights * (weight * (gap + gap_error) + gap_error + U * gap)
        ds_error = (ds_error + 1e-37 * (1 + gap + gap_error)) * seen
        slope, slope_error = torch.ones(()), torch.zeros(())
        if p.softcap:
            tanh = torch.tanh(self.raw / p.softcap).abs()
            slope = 1 - tanh**2
            x = (2 * p.head_dim + 4) * U * raw / p.softcap
            t = slope * x + 0.4 * x**2 + 10 * U * tanh
            slope_error = 2 * tanh * t + t**2 + 2 * U
        dot = ds * slope
        dot_error = ds_error * (slope + slope_error) + ds * slope_error + U * dot + 1e-37 * seen

        def chained(error, value, terms):
            return 1.01 * (error + (terms + 3) * U * (value + error))

        def of_groups(x):
            parts = x.split(p.sizes, dim=0)
            return torch.stack([part.sum(0) for part in parts], dim=1)

        n_row, n_key = seen.sum(-1, keepdim=True), torch.zeros(seen.shape).double()
        for heads in torch.arange(p.q_heads).split(p.sizes):
            n_key[heads] = seen[heads].sum((0, 1)).double().expand(len(heads), p.q_len, -1)
        results = [
            p.scale * (chained(dot_error, dot, n_row) @ k).transpose(0, 1),
            of_groups(p.scale * chained(dot_error, dot, n_key).transpose(1, 2) @ q),
            of_groups(chained(weights * weight + 1e-37, weights, n_key).transpose(1, 2) @ absolute),
        ]
        if p.bias is not None:
            axes = [i for i in range(3) if p.bias.shape[i] == 1]
            terms = seen.numel() / p.bias.numel()
            error = chained(ds_error, ds, terms)
            results.append(error.sum(axes, keepdim=True) if axes else error)
        if p.sinks is not None:
            share = torch.exp(p.sinks[:, None, None] - self.total) * seen.any(-1, keepdim=True)
            share_error = torch.expm1(total + 3 * U * ends + 4 * U)
            size = d.abs() + d_error
            error = chained(share * (share_error * size + d_error), share * size, p.q_len)
            results.append((error + 1e-37 * (1 + size)).sum((1, 2)))
        return results


def run(problems):
    """Gradients of every problem by the program, in one process."""
    data = b"".join(p.pack() for p in problems)
    done = subprocess.run([BUILD / "attention_gradients"], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    values, at = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32).double(), 0
    for p in problems:
        gradients = []
        for x in (p.q, p.k, p.v, p.bias, p.sinks):
            if x is not None:
                gradients.append(values[at : at + x.numel()].view(x.shape))
                at += x.numel()
        yield gradients
    assert at == len(values)


def test_gradients_equal_autograd():
    random = Random(20241123)
    not_zero = 0
    for start in range(0, CONFIGURATIONS, 500):
        problems = [Problem(random) for _ in range(500)]
        for i, (p, found) in enumerate(zip(problems, run(problems))):
            attention = Attention(p)
            for name, got, expected, bound in zip(
                [x for x in ("q", "k", "v", "bias", "sinks") if getattr(p, x) is not None],
                found,
                attention.gradients(),
                attention.bounds(),
                strict=True,
            ):
                expected = torch.zeros(()).double() if expected is None else expected
                excess = ((got - expected).abs() - bound).max()
                assert excess <= 0, f"configuration {start + i}: d{name}: {excess} above the bound"
                not_zero += int((expected.abs() > 100 * bound).any())
    # Most gradients are no rounding errors.
    assert not_zero > CONFIGURATIONS
