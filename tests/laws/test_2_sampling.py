"""Law 2: samples follow the distribution, rows of a batch are independent, and a seed repeats them.

Frequencies are compared with probabilities by a chi-squared statistic, whose false-alarm rate is 1e-5 a test; seeds are
fixed, so that a test that passes keeps passing. Change a seed only with a reason to believe that the sampler is right.
"""

import examples
import pytest
import torch
from torch import Tensor

import regard as rg

DRAWS = 20_000
NORMAL_QUANTILE = 4.2649  # of 1 - 1e-5


def chi_squared_quantile(freedom: int) -> float:
    """That of 1 - 1e-5, by the cube-root approximation of Wilson and Hilferty 1931."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + NORMAL_QUANTILE * spread**0.5) ** 3


def check_frequencies(outcomes: Tensor, probability: Tensor) -> None:
    """Outcomes (S,) in 0..N-1 come as often as their probabilities (N,) say, and what is impossible never comes."""
    possible = probability > 1e-12
    counts = outcomes.bincount(minlength=len(probability))
    assert (counts[~possible] == 0).all()
    expected = len(outcomes) * probability[possible]
    statistic = ((counts[possible] - expected).square() / expected).sum()
    assert statistic <= chi_squared_quantile(max(len(expected) - 1, 1))


def check_independent_rows(first: Tensor, second: Tensor, first_probability: Tensor, second_probability: Tensor):
    """The outcomes of two rows follow their distributions, together as well as each by itself."""
    check_frequencies(first, first_probability)
    check_frequencies(second, second_probability)
    joint = torch.outer(first_probability, second_probability).flatten()
    check_frequencies(first * len(second_probability) + second, joint)


def event_numbers(z: Tensor, support: Tensor) -> Tensor:
    """Which of the events (N, *event) each draw (S, *event) is."""
    same = (z.unsqueeze(1) == support.unsqueeze(0)).reshape(len(z), len(support), -1).all(-1)
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1)


def check_sampling(positions: rg.Positions) -> None:
    """The law for batch_shape (2, 1), or (2,) where one event spans the queries."""
    z, support = positions.sample((DRAWS,)), positions.enumerate_support()
    probability = positions.log_prob(support).exp().flatten(1)
    numbers = [event_numbers(z[:, row], support[:, row]) for row in (0, 1)]
    check_independent_rows(*numbers, probability[:, 0], probability[:, 1])


def twins(over: str) -> rg.Positions:
    """Two rows that are alike, with a place that may not be looked at."""
    queries = 4 if over.startswith(("tree", "constituency")) else 1
    scores = torch.tensor([0.0, 1.0, -0.5, 0.7], dtype=torch.float64).expand(2, queries, 4)
    return examples.positions(examples.OVERS[over](), scores, torch.tensor([[[True, True, False, True]]]))


@pytest.mark.parametrize("over", examples.OVERS)
def test_sampling(over: str):
    check_sampling(twins(over))


@pytest.mark.parametrize("over", examples.OVERS)
def test_a_seed_repeats_the_samples(over: str):
    positions = twins(over)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(positions.sample((64,)))
    assert (draws[0] == draws[1]).all()
    varied = (positions.log_prob(positions.enumerate_support()) > -10).sum(0).max() > 1
    assert not varied or (draws[0] != draws[2]).any()


def cells(count: int, positions: rg.Coordinate) -> Tensor:
    """The probability of each of count x count squares of the image, (count^2, N), by the midpoints of a fine grid."""
    fine = (torch.arange(count * 100, dtype=torch.float64) + 0.5) / (count * 50) - 1
    nodes = torch.cartesian_prod(fine, fine)
    mass = positions.log_prob(nodes.unsqueeze(1).expand(-1, *positions.batch_shape, 2)).exp() / (count * 50) ** 2
    return mass.view(count, 100, count, 100, -1).sum((1, 3)).flatten(0, 1)


def check_location_sampling(positions: rg.Coordinate, count: int = 4) -> None:
    """The law for a distribution over the image with batch_shape (2,), on a grid of squares."""
    z, probability = positions.sample((DRAWS,)), cells(count, positions)
    square = ((z + 1) * count / 2).long().clamp(max=count - 1)
    numbers = square[..., 0] * count + square[..., 1]  # (S, 2)
    check_independent_rows(numbers[:, 0], numbers[:, 1], probability[:, 0], probability[:, 1])


def coordinates() -> rg.Coordinate:
    centre = torch.tensor([[0.2, -0.3], [1.2, 0.9]], dtype=torch.float64)
    return rg.Coordinate(centre, torch.tensor([[0.4], [0.5]], dtype=torch.float64))


def test_location_sampling():
    check_location_sampling(coordinates())


def test_sampling_of_a_grid_of_gaussians():
    check_sampling(examples.gaussian_grid(1))
    grid = examples.gaussian_grid(2)
    z, probability = grid.sample((DRAWS,)), grid.mean
    check_independent_rows(z[:, 0, 1], z[:, 0, 3], probability[0, 1], probability[0, 3])


def test_sampling_of_a_pointer():
    check_sampling(examples.pointer(torch.tensor([0.0, 1.0, -0.5, 0.7], dtype=torch.float64).expand(2, 1, 4)))


class TestMutants:
    """Each breaks one clause of the law, which must then fail."""

    def test_temperature(self, monkeypatch: pytest.MonkeyPatch):
        right = rg.OneHot.sample
        monkeypatch.setattr(rg.OneHot, "sample", lambda self, shape: right(rg.OneHot(scores=1.2 * self.scores), shape))
        with pytest.raises(AssertionError):
            check_sampling(twins("softmax"))

    def test_noise_that_rows_share(self, monkeypatch: pytest.MonkeyPatch):
        right = rg.OneHot.sample
        monkeypatch.setattr(rg.OneHot, "sample", lambda self, shape: right(self, shape)[:, :1].expand(-1, 2, -1))
        with pytest.raises(AssertionError):
            check_sampling(twins("softmax"))

    def test_an_impossible_place(self, monkeypatch: pytest.MonkeyPatch):
        right = rg.OneHot.sample
        monkeypatch.setattr(
            rg.OneHot, "sample", lambda self, shape: right(self, shape).index_fill(0, torch.tensor(0), 2)
        )
        with pytest.raises(AssertionError):
            check_sampling(twins("softmax"))

    def test_clamping_instead_of_truncating(self, monkeypatch: pytest.MonkeyPatch):
        clamped = lambda self, shape: torch.distributions.Normal(self.centre, self.width).sample(shape).clamp(-1, 1)  # noqa: E731
        monkeypatch.setattr(rg.Coordinate, "sample", clamped)
        with pytest.raises(AssertionError):
            check_location_sampling(coordinates())
