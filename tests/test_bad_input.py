"""Sizes of zero, odd widths, infinities and NaN: a defined result or one sentence, and the same by every road."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.additive import cpu as additive_cpu
from regard.kernels.streamed import cpu_cuda as streamed
from regard.kernels.window import cpu as window
from regard.kernels.window import cpu_cuda as banded

SCORES = {
    "dot": lambda width: rg.dot,
    "scaled_dot": lambda width: rg.scaled_dot,
    "cosine": lambda width: rg.Cosine(3.0),
    "bilinear": lambda width: rg.Bilinear(width, width),
    "additive": lambda width: rg.Additive(width, width, width),
}
OVERS = {
    "softmax": rg.softmax,
    "sparsemax": rg.sparsemax,
    "entmax(1.5)": rg.entmax(1.5),
    "entmax(1.3)": rg.entmax(1.3),
    "local": rg.local(1),
}
READS = {"mean": rg.mean, "mode": rg.mode}
roads = pytest.mark.parametrize("road", ["fast", "plain"])
scores = pytest.mark.parametrize("score", SCORES)
overs = pytest.mark.parametrize("over", OVERS)
reads = pytest.mark.parametrize("read", READS)
INFINITY = float("inf")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the fast roads for small sizes too."""
    for module, name in ((additive_cpu, "SMALLEST"), (streamed, "SMALLEST"), (window, "SMALLEST")):
        monkeypatch.setattr(module, name, 0)
    for name in ("SAVED", "FEW"):
        monkeypatch.setattr(banded, name, -1e9)


def way(road: str):
    return nullcontext() if road == "fast" else rg.plain_road()


def attend(road: str, score: str, over: str, read: str, query: Tensor, keys: Tensor, mask=None) -> rg.Attended:
    part = SCORES[score](query.shape[-1])
    if isinstance(part, nn.Module):
        torch.manual_seed(0)
        for weights in part.parameters():
            nn.init.normal_(weights)
        part.requires_grad_(False)
    with way(road):
        return rg.attend(query, keys, keys, score=part, over=OVERS[over], read=READS[read], mask=mask)


@roads
@scores
@overs
@reads
def test_no_queries(road: str, score: str, over: str, read: str):
    out = attend(road, score, over, read, torch.randn(2, 0, 3), torch.randn(2, 5, 3))
    assert out.context.shape == (2, 0, 3) and out.weights.shape == (2, 0, 5)


@roads
@scores
def test_no_keys_are_refused(road: str, score: str):
    with pytest.raises(ValueError, match="keys expected at least one place to look at, but got shape"):
        attend(road, score, "softmax", "mean", torch.randn(2, 1, 3), torch.randn(2, 0, 3))


@roads
@scores
@overs
@reads
def test_no_rows(road: str, score: str, over: str, read: str):
    assert attend(road, score, over, read, torch.randn(0, 4, 3), torch.randn(0, 5, 3)).context.shape == (0, 4, 3)


@scores
@overs
@reads
@pytest.mark.parametrize("width", [1, 7, 33])
def test_any_width(score: str, over: str, read: str, width: int):
    query, keys = torch.randn(2, 3, width), torch.randn(2, 5, width)
    fast, plain = (attend(road, score, over, read, query, keys).context for road in ("fast", "plain"))
    assert_close(fast, plain)


@roads
@scores
@overs
@reads
def test_lengths_of_zero_read_nothing(road: str, score: str, over: str, read: str):
    mask = rg.padding(torch.tensor([0, 4]), 5)
    out = attend(road, score, over, read, torch.randn(2, 3, 3), torch.randn(2, 5, 3), mask)
    assert (out.context[0] == 0).all() and (out.weights[0] == 0).all()
    assert out.context.isfinite().all() and (out.weights[1, :, 4] == 0).all()
    if out.z is not None:
        assert (out.z[0] == -1).all() and (out.log_prob[0] == 0).all()


@roads
@overs
@reads
def test_scores_of_minus_infinity_are_never_looked_at(road: str, over: str, read: str):
    query = torch.ones(1, 1, 1)
    keys = torch.tensor([[[-INFINITY], [1.0], [0.5]]])
    values = torch.tensor([[[1.0], [2.0], [3.0]]])
    with way(road):
        out = rg.attend(query, keys, values, score=rg.dot, over=OVERS[over], read=READS[read])
    assert out.context.isfinite().all() and out.weights[..., 0] == 0


@roads
@scores
@pytest.mark.parametrize("size", [1e4, 1e18])
def test_large_finite_scores_give_numbers(road: str, score: str, size: float):
    query = (size * torch.randn(2, 3, 3)).requires_grad_()
    out = attend(road, score, "softmax", "mean", query, torch.randn(2, 5, 3))
    out.context.sum().backward()
    assert query.grad is not None
    assert out.context.isfinite().all() and query.grad.isfinite().all()


@scores
@overs
@pytest.mark.parametrize("bad", [float("nan"), INFINITY, -INFINITY])
def test_a_query_that_is_no_number_spoils_its_own_row_alone(score: str, over: str, bad: float):
    query, keys = torch.randn(2, 3, 3), torch.randn(2, 5, 3)
    wanted = attend("plain", score, over, "mean", query, keys).context
    query[0, 1, 0] = bad
    fast, plain = (attend(road, score, over, "mean", query, keys).context for road in ("fast", "plain"))
    others = torch.ones(2, 3, dtype=torch.bool)
    others[0, 1] = False
    assert_close(fast[others], wanted[others])
    if over == "softmax" and score != "additive":  # PyTorch's fused op reads zero where all scores are NaN
        assert (fast[0, 1].isnan() | (fast[0, 1] == 0)).all() or not plain[0, 1].isnan().any()
    else:
        assert_close(fast.isnan(), plain.isnan())
    if bad != bad:
        assert plain[0, 1].isnan().all()
