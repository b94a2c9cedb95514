"""What the speed comparison holds peers' gradients against: right, and fine enough a sieve."""

import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent / "speed"))

import gradients  # noqa: E402
import oracle  # noqa: E402
from cells import HEAD_DIM, Cell  # noqa: E402

CELL = Cell("backward", 300, "f32", 8, 1)
LOOSEST = max(oracle.TOLERANCE.values())
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data():
    return oracle.draw(CELL)


@pytest.fixture(scope="module")
def expected(data):
    return gradients.Gradients(CELL, data)


def by_autograd(data, edge=0, scale=HEAD_DIM**-0.5, strided=False, lost=None):
    """In double precision, and as a peer may get it wrong."""
    q, k, v, d_out = (torch.from_numpy(x).double() for x in (data.q, data.k, data.v, data.d_out))
    inputs = [x.requires_grad_() for x in (q.transpose(0, 1), k, v)]
    q = inputs[0]
    k, v = (x.repeat(CELL.group, 1, 1) if strided else x.repeat_interleave(CELL.group, 0)
            for x in (k, v))
    seen = torch.ones(CELL.q_len, CELL.kv_len).tril(edge).bool()
    if lost is not None:
        seen[lost + 1:, lost] = False
    scores = (scale * q @ k.transpose(1, 2)).masked_fill(~seen, -1e30)
    out = scores.softmax(-1) @ v
    dq, dk, dv = torch.autograd.grad(out, inputs, d_out.transpose(0, 1))
    return {"dq": dq.transpose(0, 1).numpy(), "dk": dk.numpy(), "dv": dv.numpy()}


def test_equal_autograd(data, expected):
    assert expected.worst_error(by_autograd(data)) < 1e-13


@pytest.mark.parametrize("mistake", [
    {"edge": 1}, {"edge": -1}, {"scale": 1.1 * HEAD_DIM**-0.5}, {"strided": True}, {"lost": 0},
    {"lost": 150}])
def test_mistakes_show(data, expected, mistake):
    assert expected.worst_error(by_autograd(data, **mistake)) > LOOSEST


@pytest.mark.parametrize("name", ["dq", "dk", "dv"])
def test_each_gradient_counts(data, expected, name):
    found = by_autograd(data)
    found[name] = 1.1 * found[name]
    assert expected.worst_error(found) > LOOSEST
    found[name][0, 0, 0] = float("nan")
    assert expected.worst_error(found) == float("inf")


def test_one_head_of_a_group_is_missing(data, expected):
    found = by_autograd(data)
    d_out = data.d_out.copy()
    d_out[:, CELL.group - 1] = 0
    without = by_autograd(oracle.Data(data.q, data.k, data.v, d_out))
    for name in "dk", "dv":
        assert expected.worst_error(found | {name: without[name]}) > LOOSEST
