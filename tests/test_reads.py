"""What each read is beyond the laws."""

import examples
import pytest
import torch
from torch.testing import assert_close

import regard as rg
from regard.positions.base import read_places


def test_a_relaxed_read_is_nearly_hard_when_cold_and_nearly_even_when_hot():
    weights = torch.tensor([[0.2, 0.3, 0.5]]).expand(1000, 1, 3)
    values = torch.eye(3).expand(1000, 3, 3)
    cold, hot = (rg.relaxed(t)(rg.OneHot(weights=weights), values)[0].squeeze(1) for t in (0.01, 100.0))
    assert (cold.amax(-1) > 0.99).float().mean() > 0.95
    assert_close(cold.mean(0), torch.tensor([0.2, 0.3, 0.5]), atol=0.05, rtol=0)
    assert_close(hot, torch.full_like(hot, 1 / 3), atol=0.05, rtol=0)


def test_a_relaxed_read_has_a_gradient_and_a_sample_none():
    for read, expected in ((rg.relaxed(0.5), True), (rg.sample, False), (rg.straight_through, True)):
        scores = torch.randn(2, 3, 4, requires_grad=True)
        context = read(rg.softmax(scores), torch.randn(2, 4, 2))[0]
        assert context.requires_grad == expected


@pytest.mark.parametrize("over", examples.OVERS)
def test_relaxed_is_refused_where_there_are_no_relaxed_events(over: str):
    scores = torch.randn(2, examples.queries(over), 4, dtype=torch.float64)
    positions = examples.positions(examples.OVERS[over](), scores)
    if positions.has_relaxed:
        assert rg.relaxed(0.5)(positions, examples.inputs()[2])[0].shape == (2, 3, 2)
    else:
        with pytest.raises(TypeError, match=f"{type(positions).__name__} has no relaxed events"):
            rg.relaxed(0.5)(positions, examples.inputs()[2])


def test_the_values_get_the_gradient_of_what_was_read():
    values = torch.randn(1, 4, 2, requires_grad=True)
    for read in (rg.sample, rg.straight_through):
        context, z, _ = read(rg.softmax(torch.randn(1, 3, 4)), values)
        (gradient,) = torch.autograd.grad(context.sum(), values)
        assert_close(gradient, rg.OneHot(weights=torch.ones(1, 1, 4)).indicator(z).sum(1).unsqueeze(-1).expand(1, 4, 2))


def test_hard_says_its_name():
    assert repr(rg.hard) == "hard"


@pytest.mark.parametrize("batches", [(3, 1), (1, 3), (3, 3)])
def test_places_and_values_of_one_row_are_those_of_all(batches: tuple[int, int]):
    values, z = torch.randn(batches[0], 5, 2), torch.tensor([[4, 0], [1, 1], [2, 3]])[: batches[1]]
    found = read_places(values, z)
    wanted = torch.stack([v[places] for v, places in zip(values.expand(3, 5, 2), z.expand(3, 2), strict=True)])
    assert torch.equal(found, wanted)
