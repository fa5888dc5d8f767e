"""Law 1: the probabilities of the events sum to one, the mean is that of the indicator, the mode is the most probable
event, and entropy and divergence are expectations: by going through every event, in float64."""

import math

import examples
import numpy as np
import pytest
import torch
from torch import Tensor

import regard as rg


def check_probability(positions: rg.Positions, values: Tensor) -> None:
    """The law for a distribution over places."""
    support = positions.enumerate_support()
    log_prob = positions.log_prob(support)
    probability = log_prob.exp()
    over_places = probability.unsqueeze(-1)
    if len(positions.batch_shape) < values.dim() - 1:  # one event spans the queries
        over_places = over_places.unsqueeze(-1)
    torch.testing.assert_close(probability.sum(0), torch.ones_like(probability[0]))
    torch.testing.assert_close((over_places * positions.indicator(support)).sum(0), positions.mean)
    torch.testing.assert_close((over_places * positions.gather(values, support)).sum(0), positions.expect(values))
    torch.testing.assert_close(-torch.xlogy(probability, probability).sum(0), positions.entropy())
    torch.testing.assert_close(log_prob.amax(0), positions.log_prob(positions.mode))


@pytest.mark.parametrize("mask", examples.MASKS)
@pytest.mark.parametrize("over", examples.OVERS)
def test_probability(over: str, mask: str):
    queries, values = examples.queries(over), examples.inputs()[2]
    scores, allowed = 2 * torch.randn(2, queries, 4, dtype=torch.float64), examples.MASKS[mask](queries)
    check_probability(examples.positions(examples.OVERS[over](), scores, allowed), values)


@pytest.mark.parametrize("over", examples.OVERS)
def test_scores_of_minus_infinity_are_places_that_are_never_looked_at(over: str):
    scores, values = torch.randn(2, examples.queries(over), 4, dtype=torch.float64), examples.inputs()[2]
    scores[0, 1] = -math.inf
    scores[1, 2, 1:3] = -math.inf
    positions = examples.positions(examples.OVERS[over](), scores)
    check_probability(positions, values)
    assert (positions.mean[scores == -math.inf] == 0).all()


@pytest.mark.parametrize("over", examples.OVERS)
def test_divergence(over: str):
    scores = torch.randn(2, 2, examples.queries(over), 4, dtype=torch.float64)
    part = examples.OVERS[over]()
    p, q = (
        examples.positions(part, scores[0]),
        examples.positions(rg.softmax if over in ("sparsemax", "top_k(2)") else part, scores[1]),
    )
    support = p.enumerate_support()
    probability = p.log_prob(support).exp()
    difference = (p.log_prob(support) - q.log_prob(support)).masked_fill(probability == 0, 0)
    torch.testing.assert_close((probability * difference).sum(0), p.kl(q))
    torch.testing.assert_close(p.kl(p), torch.zeros_like(p.kl(p)))


def location_nodes(count: int = 400) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes (N, 2) over the image and their weights (N,)."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(count))
    return torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(-1)


def check_location(positions: rg.Positions) -> None:
    """The law for a distribution over the image, by quadrature; batch_shape (N,)."""
    nodes, weights = location_nodes()
    log_prob = positions.log_prob(nodes.unsqueeze(1).expand(-1, *positions.batch_shape, 2))  # (nodes, N)
    mass = log_prob.exp() * weights.unsqueeze(-1)
    torch.testing.assert_close(mass.sum(0), torch.ones_like(mass[0]))
    torch.testing.assert_close(-(mass * log_prob).sum(0), positions.entropy())
    assert (log_prob.amax(0) <= positions.log_prob(positions.mode) + 1e-12).all()


def coordinate() -> rg.Coordinate:
    centre = torch.tensor([[0.0, 0.0], [0.9, -0.2], [1.3, 0.5], [-1.0, 1.0]], dtype=torch.float64)
    return rg.Coordinate(centre, torch.tensor([[0.2], [0.3], [0.4], [2.0]], dtype=torch.float64))


def test_location():
    check_location(coordinate())


def test_grid_of_gaussians():
    grid = examples.gaussian_grid(3)
    check_probability(grid, torch.randn(2, 20, 3, dtype=torch.float64))
    other = rg.GaussianGrid(-grid.centre, 0.7, 0.6, 3, (4, 5))
    support = grid.enumerate_support()
    difference = grid.log_prob(support) - other.log_prob(support)
    torch.testing.assert_close((grid.log_prob(support).exp() * difference).sum(0), grid.kl(other))
    torch.testing.assert_close(grid.kl(grid), torch.zeros(2, 9, dtype=torch.float64))


@pytest.mark.parametrize("blocked", [[], [0], [0, 1, 2, 3]], ids=["none", "one move", "all moves"])
def test_pointer(blocked: list[int]):
    scores, values = torch.randn(2, 2, 3, 4, dtype=torch.float64), examples.inputs()[2]
    scores[0, 1, :, blocked] = -math.inf
    positions, other = examples.pointer(scores[0]), examples.pointer(scores[1])
    check_probability(positions, values)
    check_probability(rg.Pointer(weights=0.7 * positions.moves.mean, targets=positions.targets, count=4), values)
    support = positions.enumerate_support()
    probability = positions.log_prob(support).exp()
    for q in (other, rg.softmax(scores[1])):
        difference = (positions.log_prob(support) - q.log_prob(support)).masked_fill(probability == 0, 0)
        torch.testing.assert_close((probability * difference).sum(0), positions.kl(q))
    torch.testing.assert_close(positions.kl(positions), torch.zeros_like(scores[0, ..., 0]))


class TestMutants:
    """Each breaks one clause of the law, which must then fail."""

    def test_a_nowhere_that_is_forgotten(self, monkeypatch: pytest.MonkeyPatch):
        positions = rg.OneHot(weights=torch.full((1, 1, 4), 0.2, dtype=torch.float64))
        check_probability(positions, torch.ones(1, 4, 1, dtype=torch.float64))
        monkeypatch.setattr(rg.OneHot, "enumerate_support", lambda self: torch.arange(4).view(4, 1, 1))
        with pytest.raises(AssertionError):
            check_probability(positions, torch.ones(1, 4, 1, dtype=torch.float64))

    @pytest.mark.parametrize("name", ["mean", "mode", "entropy", "indicator", "gather"])
    def test_a_wrong_answer(self, name: str, monkeypatch: pytest.MonkeyPatch):
        right = getattr(rg.OneHot, name)
        wrong = (
            property(lambda self: right.fget(self).flip(-1))
            if isinstance(right, property)
            else lambda self, *args: right(self, *args) + 0.01
        )
        positions = rg.softmax(torch.tensor([[[0.0, 1.0, 3.0], [2.0, 1.0, 1.0]]], dtype=torch.float64))
        monkeypatch.setattr(rg.OneHot, name, wrong)
        with pytest.raises(AssertionError):
            check_probability(positions, torch.rand(1, 3, 1, dtype=torch.float64))

    @pytest.mark.parametrize("name", ["mode", "entropy"])
    def test_a_pointer_that_knows_its_moves_alone(self, name: str, monkeypatch: pytest.MonkeyPatch):
        wrong = {
            "mode": property(lambda self: self._target(self.moves.mode)),
            "entropy": lambda self: self.moves.entropy(),
        }
        scores = torch.tensor([0.0, 0.4, 0.0, -1.0], dtype=torch.float64).expand(2, 3, 4)
        monkeypatch.setattr(rg.Pointer, name, wrong[name])
        with pytest.raises(AssertionError):
            check_probability(examples.pointer(scores), examples.inputs()[2])

    def test_a_gaussian_that_is_not_truncated(self, monkeypatch: pytest.MonkeyPatch):
        gaussian = lambda self, z: torch.distributions.Normal(self.centre, self.width).log_prob(z).sum(-1)  # noqa: E731
        monkeypatch.setattr(rg.Coordinate, "log_prob", gaussian)
        with pytest.raises(AssertionError):
            check_location(coordinate())
