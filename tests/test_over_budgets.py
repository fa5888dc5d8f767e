"""A budget: that the mode has the share of the places that it should, of every family and under every mask."""

import math
import re

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg

PLAIN = {
    "sigmoid": lambda: rg.sigmoid,
    "segments": lambda: rg.segments(1.5),
    "segments that do not stay": lambda: rg.segments(-0.7),
    "subset": lambda: rg.subset(1000),
}
ABOVE = [name for name in PLAIN if name != "subset"]
LENGTHS = torch.tensor([40, 1, 23, 0, 7])
ROOM = torch.tensor([12, 1, 6, 0, 2])  # three places in ten


def counted(positions: rg.Positions, z: Tensor) -> Tensor:
    return positions.indicator(z).sum((-1, -2)).long()


@pytest.mark.parametrize("scale", [0.1, 3.0, 1e3])
@pytest.mark.parametrize("over", PLAIN)
def test_the_mode_has_the_share(over: str, scale: float):
    scores = scale * torch.randn(5, 1, 40, dtype=torch.float64)
    positions = rg.budget(PLAIN[over](), 0.3)(scores, rg.padding(LENGTHS, 40))
    count = counted(positions, positions.mode)
    if over.startswith("segments"):
        assert (count <= ROOM).all() and (scale < 1 or (count[LENGTHS > 9] > 2).all())
    else:
        assert_close(count, ROOM)


def test_segments_without_a_budget_may_choose_nothing_or_everything():
    """The trap: these scores have the right ranks, and no place or every place in their mode."""
    scores = torch.linspace(0, 8, 40, dtype=torch.float64).view(1, 1, 40)
    for bias, many in ((-9.0, 0), (9.0, 40)):
        plain = rg.segments(2.0)(scores + bias)
        assert counted(plain, plain.mode) == many
    priced = [rg.budget(rg.segments(2.0), 0.25)(scores + bias) for bias in (-9.0, 9.0)]
    for positions in priced:
        assert positions.mode.flatten().tolist() == [0] * 30 + [1] * 10
    assert_close(priced[0].mean, priced[1].mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stay", [0.0, 0.8, 3.0])
def test_no_threshold_has_a_larger_mode_that_there_is_room_for(stay: float):
    scores = torch.randn(3, 1, 30, dtype=torch.float64)
    positions = rg.budget(rg.segments(stay), 0.4)(scores)
    count = counted(positions, positions.mode)
    for threshold in torch.linspace(-5, 5, 400).tolist():
        other = rg.segments(stay)(scores - threshold)
        many = counted(other, other.mode)
        assert ((many <= count) | (many > 12)).all()


def test_a_place_that_may_not_be_looked_at_takes_no_room():
    scores = torch.randn(1, 1, 20, dtype=torch.float64)
    scores[..., ::2] = -math.inf
    for over in PLAIN:
        positions = rg.budget(PLAIN[over](), 0.5)(scores)
        chosen = positions.indicator(positions.mode)
        assert chosen[..., ::2].sum() == 0 and 0 < chosen.sum() <= 5


def test_a_subset_with_a_budget_is_the_subset_of_so_many():
    scores = torch.randn(2, 3, 20, dtype=torch.float64)
    ours, plain = rg.budget(rg.subset(9), 0.2)(scores), rg.subset(4)(scores)
    assert_close(ours.mean, plain.mean)
    assert_close(ours.log_prob(plain.mode), plain.log_prob(plain.mode))
    assert (counted(ours, ours.sample((50,))) == 3 * 4).all()
    assert rg.budget(rg.subset(2), 0.2)(scores).k == 2


@pytest.mark.parametrize("over", ABOVE)
def test_the_threshold_is_a_constant_for_gradients(over: str):
    part, scores = PLAIN[over](), torch.randn(1, 1, 12, dtype=torch.float64, requires_grad=True)
    positions = rg.budget(part, 0.25)(scores)
    moved = (scores - positions.scores).detach()
    assert moved.std() < 1e-12
    z = positions.sample((3,))
    ours, wanted = (
        torch.autograd.grad(each.log_prob(z).sum(), scores)[0] for each in (positions, part(scores - moved))
    )
    assert_close(ours, wanted)


@pytest.mark.parametrize(("over", "share", "said"), [
    (rg.sigmoid, 0.0, "budget expected a share above 0 and up to 1, but got 0.0."),
    (rg.sigmoid, 1.5, "budget expected a share above 0 and up to 1, but got 1.5."),
])  # fmt: skip
def test_a_share_is_one(over, share: float, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        rg.budget(over, share)


@pytest.mark.unchecked
def test_other_overs_are_refused():
    with pytest.raises(
        TypeError, match="budget expected over to be sigmoid, segments or subset, but got <function soft"
    ):
        rg.budget(rg.softmax, 0.5)


@pytest.mark.unchecked
@pytest.mark.parametrize("over", PLAIN)
def test_it_compiles(over: str):
    attention = rg.Attention(over=rg.budget(PLAIN[over](), 0.5), read=rg.mode)
    call = lambda x: attention(x, attention.prepare(x, x)).context  # noqa: E731
    x = torch.randn(2, 6, 3)
    assert_close(torch.compile(call, backend="eager", fullgraph=True)(x), call(x))
