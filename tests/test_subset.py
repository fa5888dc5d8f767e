"""Subset against going through every set, in float64."""

import itertools
import math
import pickle
from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import kl_divergence
from torch.testing import assert_close

from regard.positions import Subset

INFINITY = float("inf")


def row(*scores: float) -> Tensor:
    return torch.tensor(scores, dtype=torch.float64)


def subset(scores: Tensor, k: int) -> Subset:
    """Of a single row (K,), as that of one query."""
    return Subset(scores.unsqueeze(0), k)


def events(z: Iterable[Sequence[int]]) -> Tensor:
    """(E, 1, k)."""
    return torch.tensor(list(z)).unsqueeze(1)


ROWS = {
    "small": row(0.3, -1.2, 2.0, 0.1, -0.4),
    "equal": row(0, 0, 0, 0, 0, 0, 0),
    "spread": row(30, -20, 0, 5, 29, -35),
    "large": row(1e4, 1e4 + 1, 1e4 - 2, 1e4 + 0.5),
    "far apart": row(1e4, 0, -1e4, 0.5, 1e4, 1),
    "masked": row(-INFINITY, 0.3, -INFINITY, 1.0, -0.7, 0.2),
    "two allowed": row(-INFINITY, 0.3, -INFINITY, 1.0),
    "blocked": row(-INFINITY, -INFINITY, -INFINITY),
    "one place": row(0.7),
}
SIZES = (1, 2, 3, 8)


def table(scores: Tensor, k: int) -> dict[tuple[int, ...], float]:
    """The log-probability of every set that can be, by enumeration."""
    allowed = [i for i, s in enumerate(scores.tolist()) if s > -INFINITY]
    sets = list(itertools.combinations(allowed, min(k, len(allowed))))
    totals = torch.stack([scores[list(z)].sum() for z in sets])
    padded = [(*z, *(-1,) * (k - len(z))) for z in sets]
    return dict(zip(padded, totals.log_softmax(0).tolist(), strict=True))


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("name", ROWS)
class TestAgainstEnumeration:
    def test_log_prob(self, name: str, k: int):
        expected = table(ROWS[name], k)
        log_prob = subset(ROWS[name], k).log_prob(events(expected)).squeeze(-1)
        assert_close(log_prob, row(*expected.values()), rtol=1e-12, atol=1e-12)

    def test_the_support_is_every_set_and_no_other_has_a_probability(self, name: str, k: int):
        positions, expected = subset(ROWS[name], k), table(ROWS[name], k)
        z = positions.enumerate_support()
        for event, log_prob in zip(z.squeeze(1).tolist(), positions.log_prob(z).tolist(), strict=True):
            assert log_prob[0] == pytest.approx(expected.pop(tuple(event), -INFINITY), abs=1e-10)
        assert not expected

    def test_mean(self, name: str, k: int):
        expected = torch.zeros_like(ROWS[name])
        for z, log_prob in table(ROWS[name], k).items():
            expected[[i for i in z if i >= 0]] += math.exp(log_prob)
        assert_close(subset(ROWS[name], k).mean[0], expected, rtol=1e-12, atol=1e-13)

    def test_mode(self, name: str, k: int):
        expected = table(ROWS[name], k)
        mode = tuple(subset(ROWS[name], k).mode[0].tolist())
        assert expected[mode] == pytest.approx(max(expected.values()), abs=1e-12)

    def test_entropy(self, name: str, k: int):
        expected = -sum(math.exp(each) * each for each in table(ROWS[name], k).values())
        assert subset(ROWS[name], k).entropy().item() == pytest.approx(expected, abs=1e-11)

    def test_divergence(self, name: str, k: int):
        other = ROWS[name].roll(1)
        expected, others = table(ROWS[name], k), table(other, k)
        divergence = sum(math.exp(a) * (a - others.get(z, -INFINITY)) for z, a in expected.items() if a > -700)
        computed = subset(ROWS[name], k).kl(subset(other, k)).item()
        assert computed == pytest.approx(divergence, rel=1e-12, abs=1e-11)

    def test_samples_are_possible_and_ascend(self, name: str, k: int):
        positions = subset(ROWS[name], k)
        z = positions.sample((50,))
        assert positions.log_prob(z).isfinite().all()
        places = z.where(z >= 0, len(ROWS[name]))  # nowhere is last
        assert (places.diff() >= 0).all()

    def test_first_and_second_gradients_are_finite(self, name: str, k: int):
        scores = ROWS[name].unsqueeze(0).clone().requires_grad_()
        positions = Subset(scores, k)
        impossible = (0,) * max(k, 2)
        z = events([*table(ROWS[name], k), impossible[:k]])
        for answer in (positions.log_prob(z), positions.mean.cos(), positions.entropy()):
            (gradient,) = torch.autograd.grad(answer.sum(), scores, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), scores)
            assert gradient.isfinite().all() and second.isfinite().all()


def test_batches_of_rows_are_each_by_themselves():
    scores = torch.randn(2, 3, 6, dtype=torch.float64)
    scores[0, 1, 2:] = -INFINITY
    positions = Subset(scores, 3)
    assert positions.batch_shape == (2, 3) and positions.event_shape == (3,)
    z = positions.sample((4,))
    assert z.shape == (4, 2, 3, 3)
    for b, q in itertools.product(range(2), range(3)):
        one = subset(scores[b, q], 3)
        assert_close(positions.mean[b, q], one.mean[0])
        assert_close(positions.entropy()[b, q], one.entropy()[0])
        assert_close(positions.log_prob(z)[:, b, q], one.log_prob(z[:, b, q, None])[:, 0])


def test_a_set_has_no_order_and_no_repeats():
    positions = Subset(torch.randn(1, 5), 3)
    log_prob = positions.log_prob(events([[4, 0, 2], [0, 2, 4], [0, 0, 2], [0, 2, -1], [-1, -1, -1]])).squeeze(-1)
    assert_close(log_prob[0], log_prob[1])
    assert log_prob[0].isfinite()
    assert (log_prob[2:] == -INFINITY).all()


def test_samples_follow_the_distribution():
    scores, draws = row(1.0, 0.0, -INFINITY, 0.5, -1.0, 2.0), 40_000
    expected = table(scores, 2)
    counts = dict.fromkeys(expected, 0)
    for z in subset(scores, 2).sample((draws,)).squeeze(1).tolist():
        counts[tuple(z)] += 1
    statistic = sum((counts[z] - draws * math.exp(p)) ** 2 / (draws * math.exp(p)) for z, p in expected.items())
    assert statistic < 33.7  # chi-squared with 9 degrees of freedom: a false alarm in 10,000


def test_draws_of_a_row_do_not_depend_on_the_rows_beside_it():
    positions = Subset(torch.zeros(2, 4), 1)
    first, second = positions.sample((20_000,)).squeeze(-1).unbind(-1)
    assert abs((first == second).float().mean() - 0.25) < 0.02


def test_a_thousand_places():
    scores = torch.randn(1, 1000, dtype=torch.float64)
    positions = Subset(scores, 20)
    assert_close(positions.mean.sum().item(), 20.0)
    first = torch.arange(20).unsqueeze(0)
    by_derivative = torch.func.grad(lambda s: (s[0, :20].sum() - Subset(s, 20).log_prob(first)).sum())(scores)
    assert_close(positions.mean, by_derivative)  # the mean is the gradient of the log of the normaliser
    assert_close(Subset(scores.float(), 20).mean, positions.mean.float(), rtol=1e-4, atol=1e-6)
    z = positions.sample((4000,))
    assert (z.diff() > 0).all()
    assert (positions.indicator(z).mean(0) - positions.mean).abs().max() < 0.04  # five standard deviations


def test_reads_the_sum_of_the_places():
    positions, values = Subset(torch.randn(2, 3, 5), 2), torch.randn(2, 5, 4)
    z = positions.sample((7,))
    assert_close(positions.gather(values, z), positions.indicator(z) @ values)
    assert_close(positions.expect(values), positions.mean @ values)
    assert (positions.gather(values, torch.full((2, 3, 2), -1)) == 0).all()


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_gradients(k: int):
    scores = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    z, other = Subset(scores, k).sample(), torch.randn(2, 5, dtype=torch.float64)

    def answers(scores: Tensor) -> tuple[Tensor, ...]:
        positions = Subset(scores, k)
        return positions.mean, positions.log_prob(z), positions.entropy(), positions.kl(Subset(other, k))

    assert gradcheck(answers, scores)
    assert gradgradcheck(answers, scores)


def test_divergence_of_sets_that_the_other_cannot_draw_is_infinite():
    p = subset(row(0, 0, 0), 2)
    assert p.kl(subset(row(0, 0, -INFINITY), 2)) == INFINITY
    assert subset(row(0, -INFINITY, -INFINITY), 2).kl(p) == INFINITY  # one place against two
    assert p.kl(p) == 0


def test_low_precision_is_computed_in_float32():
    scores = torch.randn(3, 50)
    for dtype in (torch.bfloat16, torch.float16):
        positions, exact = Subset(scores.to(dtype), 4), Subset(scores.to(dtype).float(), 4)
        assert_close(positions.mean, exact.mean.to(dtype))
        assert_close(positions.log_prob(exact.mode), exact.log_prob(exact.mode).to(dtype))
        assert positions.sample().max() < 50


def test_nan_is_not_hidden():
    positions = subset(row(0.0, float("nan"), 1.0, 2.0), 2)
    assert positions.mean.isnan().all() and positions.entropy().isnan()
    z = positions.sample()
    assert (z >= -1).all() and (z < 4).all()


@pytest.mark.unchecked
def test_compiles_whole():
    def answers(scores: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        positions = Subset(scores, 2)
        return positions.mean, positions.log_prob(z), positions.entropy(), positions.mode, positions.sample()

    scores = torch.randn(2, 5)
    z = Subset(scores, 2).mode
    compiled = torch.compile(answers, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(scores, z)[:4], answers(scores, z)[:4], strict=True):
        assert_close(got, wanted)


@pytest.mark.unchecked
def test_vmap_and_inference_mode():
    scores = torch.randn(3, 2, 5)
    z = Subset(scores, 2).mode
    answers = lambda scores, z: (Subset(scores, 2).mean, Subset(scores, 2).log_prob(z), Subset(scores, 2).entropy())  # noqa: E731
    for got, wanted in zip(torch.vmap(answers)(scores, z), answers(scores, z), strict=True):
        assert_close(got, wanted)
    assert torch.vmap(lambda scores: Subset(scores, 2).sample(), randomness="different")(scores).shape == (3, 2, 2)
    with torch.inference_mode():
        assert_close(Subset(scores, 2).mean, answers(scores, z)[0])


def test_pickles():
    positions = Subset(torch.randn(2, 5), 2)
    assert_close(pickle.loads(pickle.dumps(positions)).mean, positions.mean)


def test_kl_is_registered():
    p, q = Subset(torch.randn(1, 4), 2), Subset(torch.randn(1, 4), 2)
    assert_close(kl_divergence(p, q), p.kl(q))


@pytest.mark.unchecked
def test_errors():
    with pytest.raises(ValueError, match=r"^Subset expected k, the number of places, of at least 1, but got 0\.$"):
        Subset(torch.zeros(1, 3), 0)
    with pytest.raises(ValueError, match=r"^enumerate_support expected at most 100000 events, but got \d+\.$"):
        Subset(torch.zeros(1, 100), 10).enumerate_support()
    with pytest.raises(ValueError, match=r"^kl expected two subsets of equally many places, but got 2 and 3\.$"):
        Subset(torch.zeros(1, 4), 2).kl(Subset(torch.zeros(1, 4), 3))
