"""Alignments of frames with labels: against every path, and against PyTorch's own loss."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import regard as rg

S = 4
TARGETS = [1], [2, 1], [1, 1], [3, 3, 1], [1, 2, 1], []


def paths(labels: list[int], frames: int, blank: int = 0) -> Tensor:
    """Every path that says the labels, by going through all labellings, (N, frames)."""
    said = lambda z: [label for label, _ in itertools.groupby(z) if label != blank]  # noqa: E731
    every = [z for z in itertools.product(range(S), repeat=frames) if said(z) == labels]
    return torch.tensor(every).view(-1, frames)


def scores_of(z: Tensor, scores: Tensor) -> Tensor:
    return F.one_hot(z, S).to(scores).mul(scores).sum((-1, -2))


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("labels", TARGETS, ids=str)
def test_everything_by_going_through_all_paths(labels: list[int], blank: int):
    labels = [label for label in labels if label != blank]
    scores, other = torch.randn(2, 5, S, dtype=torch.float64)
    found, z = rg.ctc(labels, blank)(scores), paths(labels, 5, blank)
    score = scores_of(z, scores)
    chance = score.softmax(0)
    assert_close(found.log_z, score.logsumexp(0))
    assert_close(found.mean, (chance[:, None, None] * F.one_hot(z, S)).sum(0))
    assert_close(found.log_prob(z), score.log_softmax(0))
    assert_close(found.entropy(), -(chance * chance.log()).sum())
    order = score.argsort(descending=True)
    assert torch.equal(found.mode, z[order[0]])
    assert torch.equal(found.k_best(3)[: len(z)], z[order[:3]])
    q = rg.ctc(labels, blank)(other)
    assert_close(found.kl(q), (chance * (score.log_softmax(0) - scores_of(z, other).log_softmax(0))).sum())
    drawn = found.sample((4000,))
    often = (drawn.unsqueeze(1) == z).all(-1).double().mean(0)
    assert_close(often, chance, rtol=0, atol=0.04)


def test_a_wrong_path_is_impossible():
    found = rg.ctc([1, 2])(torch.randn(4, S))
    support = found.enumerate_support()
    possible = support[found.log_prob(support) > -math.inf]
    assert sorted(possible.tolist()) == sorted(paths([1, 2], 4).tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_of_pytorch_and_its_gradient(dtype: torch.dtype):
    logits, lengths, frames = (
        torch.randn(4, 12, 6, dtype=dtype),
        torch.tensor([3, 1, 0, 5]),
        torch.tensor([12, 9, 4, 11]),
    )
    targets = torch.tensor([[1, 1, 5, 0, 0], [4, 0, 0, 0, 0], [0, 0, 0, 0, 0], [2, 3, 3, 2, 1]])
    padded, present = (
        targets.where(torch.arange(5) < lengths.unsqueeze(-1), -1),
        torch.arange(12) < frames.unsqueeze(-1),
    )
    found, wanted = [], []
    for losses, loss in (
        (found, lambda each: -rg.ctc(padded)(each, present).log_z),
        (wanted, lambda each: F.ctc_loss(each.transpose(0, 1), targets, frames, lengths, reduction="none")),
    ):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf.log_softmax(-1))
        losses += [value, *torch.autograd.grad(value.sum(), leaf)]
    assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("labels", "frames"), [([1, 2], 1), ([1, 1], 2), ([3, 1, 1, 3], 4), ([1], 0)])
def test_targets_that_do_not_fit(labels: list[int], frames: int):
    """No path, and gradients of zero, beside a row in which they fit."""
    scores = torch.randn(2, 6, S, requires_grad=True)
    found = rg.ctc(labels)(scores, torch.arange(6) < torch.tensor([[frames], [6]]))
    assert found.log_z.isneginf().tolist() == [True, False]
    (slope,) = torch.autograd.grad(found.log_z.sum(), scores)
    assert (slope[0] == 0).all() and torch.equal(slope, found.mean)
    for z in (found.mode, found.sample(), *found.k_best(2)):
        assert (z[0] == -1).all() and (z[1] >= 0).all()
    assert_close((found.entropy()[0], found.log_prob(found.mode)[0]), (torch.tensor(0.0), torch.tensor(0.0)))


def test_padding_and_lengths():
    scores, targets = torch.randn(3, 6, S), torch.tensor([[1, -1, 2], [-1, -1, -1], [3, 3, 1]])
    frames = torch.tensor([6, 3, 5])
    found = rg.ctc(targets)(scores, torch.arange(6) < frames.unsqueeze(-1))
    for row, labels in enumerate([[1, 2], [], [3, 3, 1]]):
        alone = rg.ctc(labels)(scores[row, : frames[row]])
        assert_close((found.log_z[row], found.entropy()[row]), (alone.log_z, alone.entropy()))
        assert_close(found.mean[row, : frames[row]], alone.mean)
        assert torch.equal(found.mode[row, : frames[row]], alone.mode)
        assert (found.mode[row, frames[row] :] == -1).all()


def test_an_absent_frame_is_left_out():
    scores, kept = torch.randn(6, S, dtype=torch.float64), torch.tensor([0, 1, 3, 5])
    present = torch.zeros(6, dtype=torch.bool).index_fill(0, kept, True)
    found, alone = rg.ctc([2, 2])(scores, present), rg.ctc([2, 2])(scores[kept])
    assert_close((found.log_z, found.mean[kept], found.k_best(3)[:, kept]), (alone.log_z, alone.mean, alone.k_best(3)))
    z = alone.sample((5,))
    assert_close(found.log_prob(torch.full((5, 6), 9).index_copy(1, kept, z)), alone.log_prob(z))


def test_other_targets_are_infinitely_far():
    scores = torch.randn(3, 5, S)
    p = rg.ctc(torch.tensor([[1, 2], [1, -1], [2, 2]]))(scores)
    q = rg.ctc(torch.tensor([[1, 2, -1], [2, -1, -1], [2, 2, 1]]))(scores)
    assert p.kl(q).tolist() == [0.0, math.inf, math.inf]
    assert p.cross_entropy(q).isinf().tolist() == [False, True, True]
    with pytest.raises(ValueError, match="other expected the blank 0, but got 1"):
        p.kl(rg.ctc([2, 2], blank=1)(scores))


def test_second_gradients_where_pytorch_has_none():
    scores = torch.randn(2, 5, S, dtype=torch.float64, requires_grad=True)
    function = lambda scores: rg.ctc([1, 1])(scores).log_z  # noqa: E731
    assert torch.autograd.gradcheck(function, scores)
    assert torch.autograd.gradgradcheck(function, scores)


def test_it_aligns_as_attention():
    """Each frame reads the value of its label."""
    values, attention = torch.randn(1, S, 3), rg.Attention(score=rg.dot, over=rg.ctc([1, 3]), read=rg.mode)
    query = 9 * F.one_hot(torch.tensor([[1, 1, 0, 3]]), S).float()
    out = attention(query, attention.prepare(torch.eye(S)[None], values))
    assert torch.equal(out.context, values[:, [1, 1, 0, 3]]) and out.log_prob.shape == (1,)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("targets", "blank", "error", "message"),
    [
        ([1.0], 0, TypeError, r"^targets expected integers, the labels that are said, but got torch.float32\.$"),
        ([True], 0, TypeError, "but got torch.bool"),
        (
            [1, 4],
            0,
            ValueError,
            r"^targets expected labels from 0 to 3 without the blank 0, or -1 for none, but got 4\.$",
        ),
        ([-2], 0, ValueError, "but got -2"),
        ([1, 2], 2, ValueError, "without the blank 2, or -1 for none, but got 2"),
        ([1], 4, ValueError, r"^blank expected one of the 4 labels, counted from 0, but got 4\.$"),
        ([[1], [2], [1]], 0, ValueError, r"^targets expected the batch of the scores, \(2,\), but got \(3,\)\.$"),
        ([[[1]]], 0, ValueError, r"\(2,\), but got \(1, 1\)"),
    ],
)
def test_what_is_refused(targets, blank: int, error: type, message: str):
    with pytest.raises(error, match=message):
        rg.ctc(torch.tensor(targets), blank)(torch.randn(2, 5, S))
