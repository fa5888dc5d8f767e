"""The transducer: against every path through the lattice, term by term."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg

T, S = 4, 3
TARGETS = [1], [1, 2], [1, 1, 2], []


def alignments(labels: list[int], frames: int = T) -> Tensor:
    """Every one, as the frame of each label."""
    every = [z for z in itertools.product(range(frames), repeat=len(labels)) if list(z) == sorted(z)]
    return torch.tensor(every, dtype=torch.long).view(len(every), len(labels))


def score(scores: Tensor, z: list[int], labels: list[int], blank: int = 0) -> Tensor:
    """That of one alignment: at each frame its labels, and then a blank."""
    total, said = scores.new_zeros(()), 0
    for t in range(scores.shape[0]):
        while said < len(labels) and z[said] == t:
            total, said = total + scores[t, said, labels[said]], said + 1
        total = total + scores[t, said, blank]
    return total


def scored(scores: Tensor, z: Tensor, labels: list[int], blank: int = 0) -> Tensor:
    return torch.stack([score(scores, each, labels, blank) for each in z.tolist()])


@pytest.mark.parametrize("forbidden", [0.0, 0.25])
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("labels", TARGETS, ids=str)
def test_everything_by_going_through_all_alignments(labels: list[int], blank: int, forbidden: float):
    labels = [label for label in labels if label != blank]
    scores, other = torch.randn(2, T, len(labels) + 1, S, dtype=torch.float64)
    scores[:-1].masked_fill_(torch.rand(scores[:-1].shape) < forbidden, -math.inf)
    found, z = rg.rnnt(labels, blank)(scores), alignments(labels)
    total = scored(scores, z, labels, blank)
    if total.max() == -math.inf:
        assert found.log_z == -math.inf and (found.mode == -1).all()
        return
    chance = total.softmax(0)
    assert_close(found.log_z, total.logsumexp(0))
    assert_close(found.log_prob(z), total.log_softmax(0))
    assert_close(found.mean, (chance[:, None, None] * found.indicator(z)).sum(0))
    assert_close(found.entropy(), -torch.xlogy(chance, chance).sum())
    best = total.argsort(descending=True)[: int((total > -math.inf).sum())]
    assert torch.equal(found.k_best(3)[: len(best)], z[best[:3]])
    assert torch.equal(found.mode, z[best[0]])
    q = scored(other, z, labels, blank).log_softmax(0)
    kl = (chance * (total.log_softmax(0) - q)).masked_fill(chance == 0, 0).sum()
    assert_close(found.kl(rg.rnnt(labels, blank)(other)), kl)
    if labels:
        often = (found.sample((3000,)).unsqueeze(1) == z).all(-1).double().mean(0)
        assert_close(often, chance, rtol=0, atol=0.05)


def test_a_frame_before_the_one_of_the_label_before_is_impossible():
    found = rg.rnnt([1, 2])(torch.randn(T, 3, S))
    support = found.enumerate_support()
    possible = support[found.log_prob(support) > -math.inf]
    assert sorted(possible.tolist()) == sorted(alignments([1, 2]).tolist())


@pytest.mark.parametrize("road", ["kernel", "plain"])
def test_lengths_and_absent_frames(road: str):
    scores, targets = torch.randn(3, T, 4, S, dtype=torch.float64), torch.tensor([[1, -1, 2], [-1, -1, -1], [2, 2, 1]])
    frames = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 1, 1]]).bool()
    answer = lambda each: (each.log_z, each.entropy(), each.mean)  # noqa: E731
    if road == "plain":
        with rg.plain_road():
            found = answer(rg.rnnt(targets)(scores, frames))
    else:
        found = answer(rg.rnnt(targets)(scores, frames))
    for row, labels in enumerate([[1, 2], [], [2, 2, 1]]):
        kept = frames[row].nonzero().flatten()
        alone = rg.rnnt(labels)(scores[row, kept, : len(labels) + 1])
        assert_close((found[0][row], found[1][row]), (alone.log_z, alone.entropy()))
        assert_close(found[2][row, : len(labels)][:, kept], alone.mean)
        assert found[2][row].sum() == pytest.approx(len(labels)), "an absent frame says nothing"
    positions = rg.rnnt(targets)(scores, frames)
    for z in (positions.mode, *positions.sample((9,)), *positions.k_best(3)):
        assert ((z >= 0) == (positions.targets >= 0)).all()
        assert frames[2][z[2]].all() and frames[0][z[0, :2]].all()
        assert positions.log_prob(z).isfinite().all()


def test_where_there_is_no_frame():
    scores = torch.randn(2, T, 2, S, requires_grad=True)
    found = rg.rnnt([1])(scores, torch.tensor([[False] * T, [True] * T]))
    assert found.log_z.isneginf().tolist() == [True, False]
    (slope,) = torch.autograd.grad(found.log_z.sum(), scores)
    assert (slope[0] == 0).all() and slope.isfinite().all() and (slope[1] != 0).any()
    assert found.mode.tolist()[0] == [-1] and (found.mean[0] == 0).all()
    empty = rg.rnnt([])(scores[:, :, :1], torch.tensor([[False] * T, [True] * T]))
    assert_close(empty.log_z, torch.stack((torch.zeros(()), scores[1, :, 0, 0].sum())))


def test_second_gradients():
    scores = torch.randn(2, 3, 3, S, dtype=torch.float64, requires_grad=True)
    for answer in (lambda each: each.log_z, lambda each: each.mean, lambda each: each.entropy()):
        function = lambda scores, answer=answer: answer(rg.rnnt([1, 2])(scores))  # noqa: E731
        assert torch.autograd.gradcheck(function, scores, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, scores, fast_mode=True)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("targets", "shape", "error", "message"),
    [
        ([1.0], (T, 2, S), TypeError, r"targets expected integers, the labels that are said, but got torch.float32"),
        (
            [3],
            (T, 2, S),
            ValueError,
            "targets expected labels from 0 to 2 without the blank 0, or -1 for",
        ),
        (
            [1, 2],
            (T, 2, S),
            ValueError,
            r"scores expected 3 places for the targets, one more than there are, but",
        ),
        ([[1], [2]], (3, T, 2, S), ValueError, r"targets expected the batch of the scores, \(3,\), but got \(2,\)"),
    ],
)
def test_what_is_refused(targets: list, shape: tuple[int, ...], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        rg.rnnt(targets)(torch.randn(shape))


@pytest.mark.unchecked
def test_masks_that_are_refused():
    with pytest.raises(ValueError, match=r"mask expected the shape of the frames, \(4,\), but got \(3,\)"):
        rg.rnnt([1])(torch.randn(T, 2, S), torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match="mask expected dtype bool"):
        rg.rnnt([1])(torch.randn(T, 2, S), torch.ones(T))
