"""Law 4: estimators are unbiased. The estimate, summed over all tuples of draws with their probabilities, equals the
gradient of the enumerated expectation, taken by finite differences, to 1e-8. No seeds and no tolerance games.

(Comparing with the gradient that autograd takes of the same log_prob would be a tautology.)
"""

import itertools
from collections.abc import Callable

import examples
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import saccade as sc

Make = Callable[[Tensor], sc.Positions]
Estimate = Callable[[Tensor, Tensor], Tensor]


def cost(positions: sc.Positions, z: Tensor) -> Tensor:
    """A cost of events (*S, B, Q, *event) that couples the queries of a row: (*S, B)."""
    places = positions.indicator(z)  # (*S, B, Q, K)
    prices = torch.tensor([[0.3, -1.2, 2.0, 0.7], [1.1, 0.4, -0.9, 1.7]], dtype=torch.float64)
    return (places * prices).sum((-1, -2)).add(0.4).square()


def expected_cost(make: Make, scores: Tensor) -> Tensor:
    """The sum over every event, the queries enumerated together: scores (1, Q, K) to a number."""
    positions = make(scores)
    support = positions.enumerate_support()  # (N, 1, Q, *event)
    total = torch.zeros((), dtype=torch.float64)
    for choice in itertools.product(range(len(support)), repeat=scores.shape[1]):
        z = torch.stack([support[event, :, query] for query, event in enumerate(choice)], 1)
        total = total + positions.log_prob(z).sum().exp() * cost(positions, z).sum()
    return total


def true_gradient(make: Make, scores: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences, extrapolated once: the error is of the order of step^4."""

    def difference(size: float) -> Tensor:
        moves = size * torch.eye(scores.numel(), dtype=torch.float64).view(-1, *scores.shape)
        values = [(expected_cost(make, scores + move), expected_cost(make, scores - move)) for move in moves]
        return torch.stack([(up - down) / (2 * size) for up, down in values]).view_as(scores)

    return (4 * difference(step * 50) - difference(step * 100)) / 3


def estimated_gradient(make: Make, scores: Tensor, estimate: Estimate, draws: int) -> Tensor:
    """The estimate over all tuples of draws, weighted by their probabilities."""
    leaf = scores.clone().requires_grad_()
    positions = make(leaf)
    support = positions.enumerate_support()
    events = [
        torch.stack([support[event, :, query] for query, event in enumerate(choice)], 1)
        for choice in itertools.product(range(len(support)), repeat=scores.shape[1])
    ]
    events = [z for z in events if positions.log_prob(z).sum() > -float("inf")]
    total = torch.zeros((), dtype=torch.float64)
    for chosen in itertools.product(events, repeat=draws):
        z = torch.stack(chosen)  # (S, 1, Q, *event)
        log_prob = positions.log_prob(z)
        surrogate = estimate(log_prob, cost(positions, z)).mean()
        assert surrogate.item() == 0
        total = total + log_prob.sum().exp().detach() * surrogate
    return torch.autograd.grad(total, leaf)[0]


def check_unbiased(make: Make, scores: Tensor, estimate: Estimate, draws: int) -> None:
    truth = true_gradient(make, scores)
    estimated = estimated_gradient(make, scores, estimate, draws)
    assert truth.abs().max() > 1e-2
    torch.testing.assert_close(estimated, truth, rtol=0, atol=1e-8)


class Features(nn.Module):
    """A learned baseline of what the policy knew, which here is always the same."""

    def __init__(self):
        super().__init__()
        self.baseline = sc.Learned(3, 4).double()

    def forward(self, cost: Tensor) -> Tensor:
        return self.baseline(torch.ones(*cost.shape, 3, dtype=torch.float64))


def seen_before() -> sc.MovingAverage:
    """A moving average that has seen a cost, and moves no more while the tuples are enumerated."""
    average = sc.MovingAverage(0.9)
    average(torch.tensor([3.0]))
    return average.eval()


BASELINES: dict[str, Callable[[], Callable[[Tensor], Tensor | float]]] = {
    "no baseline": lambda: lambda cost: 0.0,
    "Constant": lambda: sc.Constant(2.5),
    "MovingAverage": seen_before,
    "Learned": Features,
    "SelfCritical": lambda: sc.SelfCritical(lambda cost: torch.full_like(cost, 1.7)),
    "one number a query": lambda: lambda cost: torch.tensor([[[1.0, 3.0]]], dtype=torch.float64).expand(*cost.shape, 2),
}


def make(over: str) -> Make:
    part = examples.OVERS[over]()
    return lambda scores: examples.positions(part, scores)


SCORES = torch.tensor([[[0.3, -0.5, 0.9, 0.2], [-0.4, 0.8, 0.1, -0.7]]], dtype=torch.float64)


@pytest.mark.parametrize("baseline", BASELINES)
def test_reinforce(baseline: str):
    part = BASELINES[baseline]()
    check_unbiased(make("softmax"), SCORES, lambda log_prob, cost: sc.reinforce(log_prob, cost, part(cost)), 1)


@pytest.mark.parametrize(
    "over", [name for name in examples.OVERS if name not in ("subset(9)", "without_replacement(2)")]
)
def test_reinforce_over(over: str):
    check_unbiased(make(over), SCORES, sc.reinforce, 1)


def test_reinforce_over_ordered_draws():
    check_unbiased(make("without_replacement(2)"), SCORES[:, :1], sc.reinforce, 1)


@pytest.mark.parametrize("draws", [2, 3])
@pytest.mark.parametrize("over", ["softmax", "sparsemax", "local-p", "subset(2)"])
def test_leave_one_out(over: str, draws: int):
    check_unbiased(make(over), SCORES[:, :1], sc.leave_one_out, draws)


@pytest.mark.parametrize("over", ["softmax", "entmax(1.5)", "sigmoid", "subset(2)", "without_replacement(2)"])
def test_enumerate_exactly(over: str):
    leaf = SCORES[:, :1].clone().requires_grad_()
    positions = make(over)(leaf)
    exact = sc.enumerate_exactly(positions, lambda z: cost(positions, z).unsqueeze(-1)).sum()
    torch.testing.assert_close(exact, expected_cost(make(over), SCORES[:, :1]))
    gradient = torch.autograd.grad(exact, leaf)[0]
    torch.testing.assert_close(gradient, true_gradient(make(over), SCORES[:, :1]), rtol=0, atol=1e-8)


def test_reinforce_of_a_location():
    """On a Coordinate, by quadrature instead of enumeration."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(200))
    z, weights = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(-1)
    price = (z[:, 0] - 0.3).square() + z[:, 0] * z[:, 1]
    leaf = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)

    def expected(centre: Tensor) -> Tensor:
        return (sc.Coordinate(centre, 0.5).log_prob(z).exp() * weights * price).sum()

    log_prob = sc.Coordinate(leaf, 0.5).log_prob(z)
    estimate = (log_prob.exp().detach() * weights * sc.reinforce(log_prob, price, 0.4)).sum()
    move = 1e-4 * torch.eye(2, dtype=torch.float64)
    truth = torch.stack([(expected(leaf + step) - expected(leaf - step)) / 2e-4 for step in move]).detach()
    torch.testing.assert_close(torch.autograd.grad(estimate, leaf)[0], truth, rtol=0, atol=1e-7)


class TestMutants:
    """Estimators that are biased: the law must fail for them."""

    def test_a_baseline_that_contains_its_own_draw(self):
        wrong = lambda log_prob, cost: sc.reinforce(log_prob, cost, cost.mean(0).expand_as(cost))  # noqa: E731
        with pytest.raises(AssertionError):
            check_unbiased(make("softmax"), SCORES[:, :1], wrong, 2)

    def test_a_baseline_that_looks_at_the_draw(self):
        wrong = lambda log_prob, cost: sc.reinforce(log_prob, cost, 0.5 * cost)  # noqa: E731
        with pytest.raises(AssertionError):
            check_unbiased(make("softmax"), SCORES, wrong, 1)

    def test_straight_through_is_biased_as_it_says(self):
        leaf, values = SCORES[:, :1].clone().requires_grad_(), torch.tensor([[[0.3], [-1.2], [2.0], [0.7]]]).double()
        total = torch.zeros((), dtype=torch.float64)
        for place in range(4):
            z = torch.full((1, 1), place)
            positions = sc.softmax(leaf)
            expected = positions.expect(values)
            context = positions.gather(values, z) + expected - expected.detach()
            total = total + positions.log_prob(z).exp().detach().sum() * context.add(0.4).square().sum()
        truth = true_gradient(make("softmax"), SCORES[:, :1])
        assert (torch.autograd.grad(total, leaf)[0] - truth).abs().max() > 1e-2
