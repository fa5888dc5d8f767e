"""WithoutReplacement against going through every order, in float64."""

import itertools
import math
import pickle
from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from regard.positions import OneHot, WithoutReplacement

INFINITY = float("inf")


def row(*scores: float) -> Tensor:
    return torch.tensor(scores, dtype=torch.float64)


def ordered(scores: Tensor, k: int) -> WithoutReplacement:
    """Of a single row (K,), as that of one query."""
    return WithoutReplacement(scores.unsqueeze(0), k)


def events(z: Iterable[Sequence[int]]) -> Tensor:
    """(E, 1, k)."""
    return torch.tensor(list(z)).unsqueeze(1)


ROWS = {
    "small": row(0.3, -1.2, 2.0, 0.1, -0.4),
    "equal": row(0, 0, 0, 0, 0),
    "spread": row(30, -20, 0, 5, 29),
    "large": row(1e4, 1e4 + 1, 1e4 - 2, 1e4 + 0.5),
    "far apart": row(1e4, 0, -1e4, 0.5, 1e4),
    "masked": row(-INFINITY, 0.3, -INFINITY, 1.0, -0.7, 0.2),
    "two allowed": row(-INFINITY, 0.3, -INFINITY, 1.0),
    "blocked": row(-INFINITY, -INFINITY, -INFINITY),
    "one place": row(0.7),
}
SIZES = (1, 2, 3, 6)


def table(scores: Tensor, k: int) -> dict[tuple[int, ...], float]:
    """The log-probability of every order that can be, by enumeration."""
    allowed = [i for i, s in enumerate(scores.tolist()) if s > -INFINITY]
    orders = {}
    for z in itertools.permutations(allowed, min(k, len(allowed))):
        left, log_prob = list(allowed), 0.0
        for place in z:
            log_prob += (scores[place] - scores[left].logsumexp(0)).item()
            left.remove(place)
        orders[(*z, *(-1,) * (k - len(z)))] = log_prob
    return orders


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("name", ROWS)
class TestAgainstEnumeration:
    def test_log_prob(self, name: str, k: int):
        expected = table(ROWS[name], k)
        log_prob = ordered(ROWS[name], k).log_prob(events(expected)).squeeze(-1)
        assert_close(log_prob, row(*expected.values()), rtol=1e-12, atol=1e-11)

    def test_the_support_is_every_order_and_no_other_has_a_probability(self, name: str, k: int):
        positions, expected = ordered(ROWS[name], k), table(ROWS[name], k)
        z = positions.enumerate_support()
        for event, log_prob in zip(z.squeeze(1).tolist(), positions.log_prob(z).tolist(), strict=True):
            assert log_prob[0] == pytest.approx(expected.pop(tuple(event), -INFINITY), abs=1e-10)
        assert not expected

    def test_mean(self, name: str, k: int):
        expected = torch.zeros_like(ROWS[name])
        for z, log_prob in table(ROWS[name], k).items():
            expected[[i for i in z if i >= 0]] += math.exp(log_prob)
        assert_close(ordered(ROWS[name], k).mean[0], expected, rtol=0, atol=1e-12)

    def test_mode(self, name: str, k: int):
        expected = table(ROWS[name], k)
        mode = tuple(ordered(ROWS[name], k).mode[0].tolist())
        assert expected[mode] == pytest.approx(max(expected.values()), abs=1e-12)

    def test_entropy(self, name: str, k: int):
        expected = -sum(math.exp(each) * each for each in table(ROWS[name], k).values())
        assert ordered(ROWS[name], k).entropy().item() == pytest.approx(expected, abs=1e-11)

    def test_divergence(self, name: str, k: int):
        other = ROWS[name].roll(1)
        expected, others = table(ROWS[name], k), table(other, k)
        divergence = sum(math.exp(a) * (a - others.get(z, -INFINITY)) for z, a in expected.items() if a > -700)
        computed = ordered(ROWS[name], k).kl(ordered(other, k)).item()
        assert computed == pytest.approx(divergence, rel=1e-12, abs=1e-11)

    def test_samples_are_possible(self, name: str, k: int):
        positions = ordered(ROWS[name], k)
        assert positions.log_prob(positions.sample((50,))).isfinite().all()

    def test_first_and_second_gradients_are_finite(self, name: str, k: int):
        scores = ROWS[name].unsqueeze(0).clone().requires_grad_()
        positions = WithoutReplacement(scores, k)
        z = events([*list(table(ROWS[name], k))[:100], (0,) * k])
        for answer in (positions.log_prob(z), positions.mean.cos(), positions.entropy(), positions.relax(0.5).cos()):
            (gradient,) = torch.autograd.grad(answer.sum(), scores, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), scores)
            assert gradient.isfinite().all() and second.isfinite().all()


def test_batches_of_rows_are_each_by_themselves():
    scores = torch.randn(2, 3, 6, dtype=torch.float64)
    scores[0, 1, 2:] = -INFINITY
    positions = WithoutReplacement(scores, 3)
    assert positions.batch_shape == (2, 3) and positions.event_shape == (3,)
    z = positions.sample((4,))
    assert z.shape == (4, 2, 3, 3)
    for b, q in itertools.product(range(2), range(3)):
        one = ordered(scores[b, q], 3)
        assert_close(positions.mean[b, q], one.mean[0])
        assert_close(positions.entropy()[b, q], one.entropy()[0])
        assert_close(positions.log_prob(z)[:, b, q], one.log_prob(z[:, b, q, None])[:, 0])


def test_one_place_is_a_softmax():
    scores = torch.randn(2, 5, dtype=torch.float64)
    one, several = OneHot(scores=scores), WithoutReplacement(scores, 1)
    z = one.sample((9,))
    assert_close(several.log_prob(z.unsqueeze(-1)), one.log_prob(z))
    assert_close(several.mean, one.mean)
    assert_close(several.entropy(), one.entropy())


def test_what_cannot_be_drawn():
    positions = WithoutReplacement(torch.randn(1, 5), 3)
    impossible = events([[0, 0, 2], [0, 2, -1], [-1, -1, -1]])
    assert (positions.log_prob(impossible) == -INFINITY).all()
    assert positions.log_prob(events([[2, 0, 1]])).isfinite()


def test_samples_follow_the_distribution():
    scores, draws = row(1.0, 0.0, -INFINITY, 0.5, -1.0), 40_000
    expected = table(scores, 2)
    counts = dict.fromkeys(expected, 0)
    for z in ordered(scores, 2).sample((draws,)).squeeze(1).tolist():
        counts[tuple(z)] += 1
    statistic = sum((counts[z] - draws * math.exp(p)) ** 2 / (draws * math.exp(p)) for z, p in expected.items())
    assert statistic < 37.4  # chi-squared with 11 degrees of freedom: a false alarm in 10,000


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 100.0])
def test_the_mean_of_many_places(scale: float, k: int):
    positions = WithoutReplacement(scale * torch.randn(1, 60, dtype=torch.float64), k)
    assert_close(positions.mean.sum().item(), float(k), rtol=1e-12, atol=0)
    drawn = positions.indicator(positions.sample((4000,))).mean(0)
    assert (drawn - positions.mean).abs().max() < 0.04  # five standard deviations
    assert_close(WithoutReplacement(positions.scores.float(), k).mean, positions.mean.float(), rtol=0, atol=1e-4)


def test_reads_the_sum_of_the_places():
    positions, values = WithoutReplacement(torch.randn(2, 3, 5), 2), torch.randn(2, 5, 4)
    z = positions.sample((7,))
    assert_close(positions.gather(values, z), positions.indicator(z) @ values)
    assert_close(positions.expect(values), positions.mean @ values)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_gradients(k: int):
    scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    z, other = WithoutReplacement(scores, k).sample(), torch.randn(2, 4, dtype=torch.float64)

    def answers(scores: Tensor) -> tuple[Tensor, ...]:
        positions = WithoutReplacement(scores, k)
        divergence = positions.kl(WithoutReplacement(other, k))
        return positions.mean, positions.log_prob(z), positions.entropy(), divergence

    assert gradcheck(answers, scores)
    assert gradgradcheck(answers, scores)


@pytest.mark.parametrize("name", ROWS)
def test_a_relaxed_draw_becomes_a_draw(name: str):
    positions = WithoutReplacement(ROWS[name].expand(200, -1), 3)
    torch.manual_seed(1)
    relaxed = positions.relax(1e-4)
    torch.manual_seed(1)
    drawn = positions.indicator(positions.sample())
    near = (relaxed - drawn).abs().amax(-1) < 1e-3
    assert near.float().mean() > 0.98  # two noisy scores may tie
    assert_close(positions.relax(1.0).sum(-1), positions.count.double())


def test_low_precision_is_computed_in_float32():
    scores = torch.randn(3, 50)
    for dtype in (torch.bfloat16, torch.float16):
        positions, exact = WithoutReplacement(scores.to(dtype), 4), WithoutReplacement(scores.to(dtype).float(), 4)
        assert_close(positions.mean, exact.mean.to(dtype))
        assert_close(positions.log_prob(exact.mode), exact.log_prob(exact.mode).to(dtype))
        assert positions.sample().max() < 50


def test_nan_is_not_hidden():
    positions = ordered(row(0.0, float("nan"), 1.0, 2.0), 2)
    assert positions.mean.isnan().all() and positions.entropy().isnan()
    z = positions.sample()
    assert (z >= -1).all() and (z < 4).all()


@pytest.mark.unchecked
def test_compiles_whole():
    def answers(scores: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        positions = WithoutReplacement(scores, 2)
        exact = positions.mean, positions.log_prob(z), positions.entropy(), positions.mode
        return *exact, positions.sample(), positions.relax(0.5)

    scores = torch.randn(2, 5)
    z = WithoutReplacement(scores, 2).mode
    compiled = torch.compile(answers, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(scores, z)[:4], answers(scores, z)[:4], strict=True):
        assert_close(got, wanted)


@pytest.mark.unchecked
def test_vmap_and_inference_mode():
    scores = torch.randn(3, 2, 5)
    z = WithoutReplacement(scores, 2).mode

    def answers(scores: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        positions = WithoutReplacement(scores, 2)
        return positions.mean, positions.log_prob(z), positions.entropy(), positions.mode

    for got, wanted in zip(torch.vmap(answers)(scores, z), answers(scores, z), strict=True):
        assert_close(got, wanted)
    sample = torch.vmap(lambda scores: WithoutReplacement(scores, 2).sample(), randomness="different")
    assert sample(scores).shape == (3, 2, 2)
    with torch.inference_mode():
        assert_close(WithoutReplacement(scores, 2).mean, answers(scores, z)[0])


def test_pickles():
    positions = WithoutReplacement(torch.randn(2, 5), 2)
    assert_close(pickle.loads(pickle.dumps(positions)).mean, positions.mean)


@pytest.mark.unchecked
def test_errors():
    least = r"^WithoutReplacement expected k, the number of places, of at least 1, but got 0\.$"
    with pytest.raises(ValueError, match=least):
        WithoutReplacement(torch.zeros(1, 3), 0)
    with pytest.raises(ValueError, match=r"^enumerate_support expected at most 100000 events, but got \d+\.$"):
        WithoutReplacement(torch.zeros(1, 100), 5).entropy()
    with pytest.raises(ValueError, match=r"^kl expected two draws of equally many places, but got 2 and 3\.$"):
        WithoutReplacement(torch.zeros(1, 4), 2).kl(WithoutReplacement(torch.zeros(1, 4), 3))
