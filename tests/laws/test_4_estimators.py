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

import regard as rg
from regard import estimators

Make = Callable[[Tensor], rg.Positions]
Estimate = Callable[[Tensor, Tensor], Tensor]


def cost(positions: rg.Positions, z: Tensor) -> Tensor:
    """A cost of events (*S, B, Q, *event) that couples the queries of a row: (*S, B)."""
    if isinstance(positions, rg.Chunkwise):
        positions = positions.stops  # where it stopped: what is read round there depends on the scores once more
    places = positions.indicator(z)  # (*S, B, Q, K)
    prices = torch.tensor([[0.3, -1.2, 2.0, 0.7], [1.1, 0.4, -0.9, 1.7], [-0.6, 0.9, 0.2, -1.3]], dtype=torch.float64)
    prices = prices[: places.shape[-2], : places.shape[-1]]
    return (places * prices).sum((-1, -2)).add(0.4).square()


def events(positions: rg.Positions) -> list[Tensor]:
    """Every event of a row with all its queries, (1, Q, *event)."""
    support = positions.enumerate_support()  # (N, 1, Q, *event)
    if len(positions.batch_shape) == 1:  # one event spans the queries
        return list(support)
    choices = itertools.product(range(len(support)), repeat=positions.batch_shape[1])
    return [torch.stack([support[event, :, query] for query, event in enumerate(each)], 1) for each in choices]


def expected_cost(make: Make, scores: Tensor) -> Tensor:
    """The sum over every event, the queries enumerated together: scores (1, Q, K) to a number."""
    positions = make(scores)
    z = torch.stack(events(positions))
    return (positions.log_prob(z).flatten(1).sum(1).exp() * cost(positions, z).flatten()).sum()


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
    every = torch.stack(events(positions))
    possible = every[positions.log_prob(every).flatten(1).sum(1) > -float("inf")]
    total = torch.zeros((), dtype=torch.float64)
    for chosen in itertools.product(possible, repeat=draws):
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
        self.baseline = rg.Learned(3, 4).double()

    def forward(self, cost: Tensor) -> Tensor:
        return self.baseline(torch.ones(*cost.shape, 3, dtype=torch.float64))


def seen_before() -> rg.MovingAverage:
    """A moving average that has seen a cost, and moves no more while the tuples are enumerated."""
    average = rg.MovingAverage(0.9)
    average(torch.tensor([3.0]))
    return average.eval()


BASELINES: dict[str, Callable[[], Callable[[Tensor], Tensor | float]]] = {
    "no baseline": lambda: lambda cost: 0.0,
    "Constant": lambda: rg.Constant(2.5),
    "MovingAverage": seen_before,
    "Learned": Features,
    "SelfCritical": lambda: rg.SelfCritical(lambda cost: torch.full_like(cost, 1.7)),
    "one number a query": lambda: lambda cost: torch.tensor([[[1.0, 3.0]]], dtype=torch.float64).expand(*cost.shape, 2),
}


def make(over: str) -> Make:
    part = examples.OVERS[over]()
    return lambda scores: examples.positions(part, scores)


SCORES = torch.tensor([[[0.3, -0.5, 0.9, 0.2], [-0.4, 0.8, 0.1, -0.7]]], dtype=torch.float64)


@pytest.mark.parametrize("baseline", BASELINES)
def test_reinforce(baseline: str):
    part = BASELINES[baseline]()
    check_unbiased(make("softmax"), SCORES, lambda log_prob, cost: rg.reinforce(log_prob, cost, part(cost)), 1)


@pytest.mark.parametrize(
    "over", [name for name in examples.OVERS if name not in ("subset(9)", "without_replacement(2)")]
)
def test_reinforce_over(over: str):
    scores = SCORES.flatten()[:4].view(1, 2, 2) if over.startswith("tree") else SCORES
    if over == "constituency":  # of two words there is one tree
        scores = torch.cat((SCORES[0, 0], SCORES[0, 1], SCORES[0, 0, :1])).view(1, 3, 3)
    check_unbiased(make(over), scores, rg.reinforce, 1)


def test_reinforce_over_ordered_draws():
    check_unbiased(make("without_replacement(2)"), SCORES[:, :1], rg.reinforce, 1)


@pytest.mark.parametrize("draws", [2, 3])
@pytest.mark.parametrize("over", ["softmax", "sparsemax", "local-p", "subset(2)"])
def test_leave_one_out(over: str, draws: int):
    check_unbiased(make(over), SCORES[:, :1], rg.leave_one_out, draws)


@pytest.mark.parametrize(
    "over", ["softmax", "entmax(1.5)", "sigmoid", "subset(2)", "without_replacement(2)", "segments"]
)
def test_enumerate_exactly(over: str):
    leaf = SCORES[:, :1].clone().requires_grad_()
    positions = make(over)(leaf)
    exact = rg.enumerate_exactly(positions, lambda z: cost(positions, z).unsqueeze(-1)).sum()
    torch.testing.assert_close(exact, expected_cost(make(over), SCORES[:, :1]))
    gradient = torch.autograd.grad(exact, leaf)[0]
    torch.testing.assert_close(gradient, true_gradient(make(over), SCORES[:, :1]), rtol=0, atol=1e-8)


def test_a_pointer():
    """Of its places, some of which several moves lead to."""
    check_unbiased(examples.pointer, SCORES, rg.reinforce, 1)
    check_unbiased(examples.pointer, SCORES[:, :1], rg.leave_one_out, 2)
    leaf = SCORES.clone().requires_grad_()
    positions = examples.pointer(leaf[:, :1])
    exact = rg.enumerate_exactly(positions, lambda z: cost(positions, z).unsqueeze(-1)).sum()
    gradient = torch.autograd.grad(exact, leaf)[0][:, :1]
    torch.testing.assert_close(gradient, true_gradient(examples.pointer, SCORES[:, :1]), rtol=0, atol=1e-8)


def test_a_pointer_paid_for_its_moves_would_be_biased():
    """By the log-probability of one of the moves that lead to a place."""

    class Moves(rg.Pointer):
        def log_prob(self, value: Tensor) -> Tensor:
            return self.moves.log_prob((self.targets == value.unsqueeze(-1)).int().argmax(-1))

    def wrong(scores: Tensor) -> rg.Pointer:
        right = examples.pointer(scores)
        return Moves(scores=scores, targets=right.targets, count=right.count)

    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            estimated_gradient(wrong, SCORES[:, :1], rg.reinforce, 1), true_gradient(examples.pointer, SCORES[:, :1])
        )


def test_reinforce_of_a_location():
    """On a Coordinate, by quadrature instead of enumeration."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(200))
    z, weights = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(-1)
    price = (z[:, 0] - 0.3).square() + z[:, 0] * z[:, 1]
    leaf = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)

    def expected(centre: Tensor) -> Tensor:
        return (rg.Coordinate(centre, 0.5).log_prob(z).exp() * weights * price).sum()

    log_prob = rg.Coordinate(leaf, 0.5).log_prob(z)
    estimate = (log_prob.exp().detach() * weights * rg.reinforce(log_prob, price, 0.4)).sum()
    move = 1e-4 * torch.eye(2, dtype=torch.float64)
    truth = torch.stack([(expected(leaf + step) - expected(leaf - step)) / 2e-4 for step in move]).detach()
    torch.testing.assert_close(torch.autograd.grad(estimate, leaf)[0], truth, rtol=0, atol=1e-7)


class Chain:
    """Two choices, the second of which knows the first, each with a cost: what actor_critic is about."""

    def __init__(self):
        self.scores = torch.tensor([[0.3, -0.5, 0.2], [0.9, 0.1, -0.4], [-0.2, 0.6, 0.5], [0.4, -0.8, 0.3]]).double()
        self.first, self.second = torch.tensor([0.5, -1.0, 2.0]).double(), torch.randn(3, 3).double()

    def log_prob(self, scores: Tensor) -> Tensor:
        """Of all nine paths, (9, 2)."""
        first, second = scores[0].log_softmax(-1), scores[1:].log_softmax(-1)
        return torch.stack([first[:, None].expand(3, 3), second], -1).flatten(0, 1)

    @property
    def cost(self) -> Tensor:
        return torch.stack([self.first[:, None].expand(3, 3), self.second], -1).flatten(0, 1)

    def truth(self) -> Tensor:
        def expected(scores: Tensor) -> Tensor:
            return (self.log_prob(scores).sum(-1).exp() * self.cost.sum(-1)).sum()

        moves = 1e-4 * torch.eye(self.scores.numel()).double().view(-1, *self.scores.shape)
        differences = [(expected(self.scores + move) - expected(self.scores - move)) / 2e-4 for move in moves]
        return torch.stack(differences).view_as(self.scores)

    def estimated(self, estimate: Estimate) -> Tensor:
        leaf = self.scores.clone().requires_grad_()
        log_prob = self.log_prob(leaf)
        surrogate = estimate(log_prob, self.cost)
        assert (surrogate == 0).all()
        total = (log_prob.sum(-1).exp().detach() * surrogate.sum(-1)).sum()
        return torch.autograd.grad(total, leaf)[0]

    def bias(self, estimate: Estimate) -> float:
        return (self.estimated(estimate) - self.truth()).abs().max().item()


WRONG = torch.tensor([0.7, 1.3], dtype=torch.float64)  # what a bad critic expects, whatever was chosen


def test_actor_critic_with_a_full_trace():
    chain = Chain()
    assert chain.bias(lambda log_prob, cost: rg.actor_critic(log_prob, cost, WRONG.expand_as(cost))) < 1e-7
    assert chain.bias(lambda log_prob, cost: rg.reinforce(log_prob, rg.to_go(cost), WRONG.expand_as(cost))) < 1e-7


def test_actor_critic_with_one_cost_at_the_end():
    chain = Chain()
    chain.first = torch.zeros(3).double()
    assert chain.bias(lambda log_prob, cost: rg.actor_critic(log_prob, cost[:, 1], WRONG.expand_as(cost))) < 1e-7


@pytest.mark.parametrize("trace", [0.0, 0.5])
def test_actor_critic_with_a_short_trace_is_as_biased_as_its_critic(trace: float):
    chain = Chain()
    after = (chain.log_prob(chain.scores)[:, 1].exp() * chain.cost[:, 1]).view(3, 3).sum(-1)  # by the first choice
    right = torch.stack([torch.zeros(9).double(), after[:, None].expand(3, 3).flatten()], -1)
    estimate = lambda value: lambda log_prob, cost: rg.actor_critic(log_prob, cost, value, trace=trace)  # noqa: E731
    assert chain.bias(estimate(right)) < 1e-7
    assert chain.bias(estimate(WRONG.expand(9, 2))) > 1e-2


def test_a_discount_below_one_is_biased_for_the_sum_as_it_says():
    estimate = lambda log_prob, cost: rg.actor_critic(log_prob, cost, WRONG.expand_as(cost), discount=0.5)  # noqa: E731
    assert Chain().bias(estimate) > 1e-2


def gumbel_grid(monkeypatch: pytest.MonkeyPatch, places: int) -> tuple[Tensor, Tensor]:
    """Makes the noise of a query with `places` places a grid (N, 1, 1, places + 1), whose weights (N) are given back.

    The trapezoid rule in the logit of the uniform number, which converges geometrically.
    """
    t = torch.linspace(-34, 34, 400 if places == 2 else 90, dtype=torch.float64)
    uniform_log, density = -torch.nn.functional.softplus(-t), torch.sigmoid(t) * torch.sigmoid(-t) * (t[1] - t[0])
    noise, weights = -(-uniform_log).log(), density
    grid = torch.cartesian_prod(*[noise] * places).view(-1, 1, 1, places)
    noise = torch.cat((grid, torch.zeros_like(grid[..., :1])), -1)
    monkeypatch.setattr("regard.estimators.gumbel_like", lambda log_weights: noise)
    monkeypatch.setattr("regard.positions.onehot.gumbel_like", lambda log_weights: noise)
    return noise, torch.cartesian_prod(*[weights] * places).view(-1, places).prod(-1)


def enumerated(monkeypatch: pytest.MonkeyPatch, scores: Tensor, estimate: Callable[[rg.OneHot], Tensor]) -> Tensor:
    """The gradient of an estimate of one draw, over every draw, and over its noise by quadrature."""
    noise, weights = gumbel_grid(monkeypatch, scores.shape[-1])
    torch.testing.assert_close(weights.sum(), torch.ones(()).double(), rtol=0, atol=1e-8)
    total = torch.zeros_like(scores)
    for place in range(scores.shape[-1]):
        leaf = scores.expand(len(noise), 1, -1, -1).clone().requires_grad_()
        positions = rg.OneHot(scores=leaf)
        z = torch.full(positions.batch_shape, place)
        monkeypatch.setattr(positions, "sample", lambda z=z: z)
        probability = positions.log_prob(z).exp().detach()
        (gradient,) = torch.autograd.grad(estimate(positions).sum(), leaf)
        total = total + (probability.unsqueeze(-1) * weights.view(-1, 1, 1, 1) * gradient).sum(0)
    return total


def pay(places: Tensor) -> Tensor:
    """A cost of places (*B, Q, K), relaxed or not: (*B, Q)."""
    prices = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)[: places.shape[-1]]
    return (places @ prices).add(0.4).square()


TWO, THREE = torch.tensor([[[0.4, -0.7]]]).double(), torch.tensor([[[0.4, -0.7, 0.1]]]).double()


def true_gradient_of_pay(scores: Tensor) -> Tensor:
    expected = lambda scores: (scores.softmax(-1) * pay(torch.eye(scores.shape[-1]).double())).sum()  # noqa: E731
    return torch.func.grad(expected)(scores)


@pytest.mark.parametrize(("scores", "within"), [(TWO, 1e-8), (THREE, 1e-6)])
def test_rebar(monkeypatch: pytest.MonkeyPatch, scores: Tensor, within: float):
    estimate = lambda positions: rg.rebar(positions, pay, temperature=0.7, scale=0.8)  # noqa: E731
    estimated = enumerated(monkeypatch, scores, estimate)
    torch.testing.assert_close(estimated, true_gradient_of_pay(scores), rtol=0, atol=within)


def test_relax(monkeypatch: pytest.MonkeyPatch):
    control = lambda places: (3 * places[..., 0] - 1).sin() + places[..., 1].exp()  # noqa: E731
    estimated = enumerated(monkeypatch, TWO, lambda positions: rg.relax(positions, pay, control, temperature=1.3))
    torch.testing.assert_close(estimated, true_gradient_of_pay(TWO), rtol=0, atol=1e-8)


def test_relaxed_is_unbiased_for_its_own_objective_and_biased_for_that_of_draws(monkeypatch: pytest.MonkeyPatch):
    noise, weights = gumbel_grid(monkeypatch, 2)

    def objective(scores: Tensor) -> Tensor:
        context = rg.relaxed(0.5)(rg.OneHot(scores=scores.expand(len(noise), 1, -1, -1)), torch.eye(2).double())[0]
        return (weights * pay(context).flatten()).sum()

    estimated = torch.func.grad(objective)(TWO)
    moves = 1e-4 * torch.eye(2).double()
    own = torch.stack([(objective(TWO + move) - objective(TWO - move)) / 2e-4 for move in moves]).view(1, 1, 2)
    torch.testing.assert_close(estimated, own, rtol=0, atol=1e-7)
    assert (estimated - true_gradient_of_pay(TWO)).abs().max() > 1e-2


class TestVariational:
    """The evidence bound, on three places with a known likelihood."""

    prior, likelihood = torch.tensor([[0.2, 0.5, 0.3]]).double(), torch.tensor([0.7, 0.1, 0.4]).double()

    def bound(self, scores: Tensor) -> Tensor:
        posterior = rg.OneHot(scores=scores)
        cost = rg.enumerate_exactly(posterior, lambda z: -self.likelihood.log()[z])
        return rg.variational(cost, posterior, rg.OneHot(weights=self.prior))

    def test_it_is_a_bound_and_tight_at_the_true_posterior(self):
        evidence = -(self.prior * self.likelihood).sum(-1).log()
        assert (self.bound(torch.zeros(1, 3).double()) > evidence + 1e-2).all()
        torch.testing.assert_close(self.bound((self.prior * self.likelihood).log()), evidence)

    def test_by_draws_it_has_the_gradient_of_the_enumerated_one(self):
        leaf = torch.tensor([[0.3, -0.4, 0.6]]).double().requires_grad_()
        posterior = rg.OneHot(scores=leaf)
        z = torch.arange(3).unsqueeze(-1)
        log_prob, cost = posterior.log_prob(z), -self.likelihood.log()[z]
        each = rg.variational(
            cost, rg.OneHot(scores=leaf.expand(3, 1, 3)), rg.OneHot(weights=self.prior.expand(3, 1, 3))
        )
        total = (log_prob.exp().detach() * (each + rg.reinforce(log_prob, cost, 0.3))).sum()
        (exact,) = torch.autograd.grad(self.bound(leaf).sum(), leaf)
        torch.testing.assert_close(torch.autograd.grad(total, leaf)[0], exact, rtol=0, atol=1e-8)


class TestMutants:
    """Estimators that are biased: the law must fail for them."""

    def test_a_baseline_that_contains_its_own_draw(self):
        wrong = lambda log_prob, cost: rg.reinforce(log_prob, cost, cost.mean(0).expand_as(cost))  # noqa: E731
        with pytest.raises(AssertionError):
            check_unbiased(make("softmax"), SCORES[:, :1], wrong, 2)

    def test_a_baseline_that_looks_at_the_draw(self):
        wrong = lambda log_prob, cost: rg.reinforce(log_prob, cost, 0.5 * cost)  # noqa: E731
        with pytest.raises(AssertionError):
            check_unbiased(make("softmax"), SCORES, wrong, 1)

    def test_straight_through_is_biased_as_it_says(self):
        leaf, values = SCORES[:, :1].clone().requires_grad_(), torch.tensor([[[0.3], [-1.2], [2.0], [0.7]]]).double()
        total = torch.zeros((), dtype=torch.float64)
        for place in range(4):
            z = torch.full((1, 1), place)
            positions = rg.softmax(leaf)
            expected = positions.expect(values)
            context = positions.gather(values, z) + expected - expected.detach()
            total = total + positions.log_prob(z).exp().detach().sum() * context.add(0.4).square().sum()
        truth = true_gradient(make("softmax"), SCORES[:, :1])
        assert (torch.autograd.grad(total, leaf)[0] - truth).abs().max() > 1e-2

    def test_a_control_whose_mean_is_not_put_back(self, monkeypatch: pytest.MonkeyPatch):
        def wrong(positions: rg.OneHot) -> Tensor:
            z = positions.sample()
            control = pay(positions.mean).detach() * (z == 0)  # it depends on the draw
            return rg.reinforce(positions.log_prob(z), pay(positions.indicator(z)), control)

        estimated = enumerated(monkeypatch, TWO, wrong)
        assert (estimated - true_gradient_of_pay(TWO)).abs().max() > 1e-2

    def test_relax_without_the_gradient_through_the_control(self, monkeypatch: pytest.MonkeyPatch):
        noisy = estimators._noisy
        monkeypatch.setattr(estimators, "_noisy", lambda *given: tuple(each.detach() for each in noisy(*given)))
        estimated = enumerated(monkeypatch, TWO, lambda positions: rg.relax(positions, pay, pay))
        assert (estimated - true_gradient_of_pay(TWO)).abs().max() > 1e-3

    def test_a_critic_that_knows_the_choice(self):
        wrong = lambda log_prob, cost: rg.actor_critic(log_prob, cost, 0.5 * rg.to_go(cost))  # noqa: E731
        assert Chain().bias(wrong) > 1e-2
