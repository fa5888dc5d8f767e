"""Frames that go through all places in turn: against every such path, written down."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg


def paths(frames: int, places: int) -> Tensor:
    """All paths, (count, T): where each place but the first begins."""
    found = []
    for begins in combinations(range(1, frames), places - 1):
        found.append([sum(t >= begin for begin in begins) for t in range(frames)])
    return torch.tensor(found).view(-1, frames)


def totals(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The paths of scores (T, K) and what each scores."""
    every = paths(*scores.shape)
    return every, scores.gather(1, every.T).sum(0)


@pytest.mark.parametrize(("frames", "places"), [(1, 1), (4, 1), (3, 3), (6, 3), (7, 4)])
def test_against_every_path(frames: int, places: int):
    scores = torch.randn(frames, places, dtype=torch.float64, requires_grad=True)
    positions = rg.forced_alignment(scores)
    every, total = totals(scores)
    assert len(every) == math.comb(frames - 1, places - 1)
    assert_close(positions.log_z, total.logsumexp(0))
    chances = total.softmax(0)
    indicator = torch.nn.functional.one_hot(every, places).double()
    assert_close(positions.mean, torch.einsum("e,etk->tk", chances, indicator))
    assert_close(positions.log_prob(every), total.log_softmax(0))
    assert_close(positions.entropy(), -(chances * total.log_softmax(0)).sum())
    assert torch.equal(positions.mode, every[total.argmax()])
    best = total.sort(descending=True).indices[:3]
    assert torch.equal(positions.k_best(3)[: len(best)], every[best])
    (slopes,) = torch.autograd.grad(positions.log_z, scores)
    assert_close(slopes, positions.mean.detach())


def test_no_other_path_is_possible():
    positions = rg.forced_alignment(torch.randn(4, 3))
    for wrong in ([0, 1, 1, 1], [1, 1, 2, 2], [0, 2, 1, 2], [0, 0, 2, 2], [0, 1, 2, 1]):
        assert positions.log_prob(torch.tensor(wrong)) == -torch.inf, wrong
    assert positions.log_prob(torch.tensor([0, 1, 1, 2])) > -torch.inf


def test_absent_frames_and_places_are_left_out():
    scores = torch.randn(2, 6, 4, dtype=torch.float64)
    frames = torch.arange(6) < torch.tensor([[6], [5]])
    places = torch.arange(4) < torch.tensor([[4], [2]])
    found = rg.forced_alignment(scores, frames.unsqueeze(-1) & places.unsqueeze(1))
    short = rg.forced_alignment(scores[1, :5, :2])
    assert_close(found.log_z[1], short.log_z)
    assert_close(found.mean[1, :5, :2], short.mean)
    assert not found.mean[1, 5:].any() and not found.mean[1, :, 2:].any()
    assert found.mode[1].tolist() == [*short.mode.tolist(), -1]
    between = torch.tensor([True, False, True, True])
    skipped = rg.forced_alignment(scores[0], between.expand(6, 4))
    assert_close(skipped.log_z, rg.forced_alignment(scores[0][:, between]).log_z)
    assert set(skipped.mode.tolist()) == {0, 2, 3}


def test_too_few_frames_have_no_path():
    scores = torch.randn(2, 3, requires_grad=True)
    positions = rg.forced_alignment(scores)
    assert positions.log_z == -torch.inf and not positions.mean.any()
    assert positions.mode.tolist() == [-1, -1]
    (slopes,) = torch.autograd.grad(positions.log_z, scores)
    assert not slopes.any()


def test_draws_follow_the_paths():
    positions = rg.forced_alignment(torch.randn(5, 3))
    draws = positions.sample((4000,))
    shares = torch.nn.functional.one_hot(draws, 3).float().mean(0)
    assert (shares - positions.mean).abs().max() < 0.05
    assert (positions.log_prob(draws) > -torch.inf).all()


def test_second_gradients():
    scores = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda each: rg.forced_alignment(each).log_z, scores)


def test_attention_reads_by_it():
    query, keys = torch.randn(2, 7, 8), torch.randn(2, 3, 8)
    out = rg.attend(query, keys, keys, over=rg.forced_alignment, read=rg.hard)
    assert out.log_prob.shape == (2,) and out.z.shape == (2, 7)
    assert torch.equal(out.context, keys.take_along_dim(out.z.unsqueeze(-1), 1))
