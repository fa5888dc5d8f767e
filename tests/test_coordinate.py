"""Coordinate against quadrature and the textbook's formulas, in float64."""

import itertools
import math
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from regard.positions import Coordinate

INFINITY = float("inf")
CENTRES = (0.0, 0.3, -0.9, 1.0, -1.2, 2.0, -3.0)
WIDTHS = (0.05, 0.3, 1.0, 10.0, 900.0)
EXTREMES = (0.0, 1e-30, 0.3, -1.0, 1.0000001, -5.0, 1e4, -1e10, 1e30)


NODES = 500


@cache
def line() -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes on the image, denser towards both edges, and their weights."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(NODES))
    return (math.pi / 2 * nodes).sin(), math.pi / 2 * (math.pi / 2 * nodes).cos() * weights


def both(centre: float, width: float) -> Coordinate:
    """The same in y and in x."""
    return Coordinate(torch.full((1, 2), centre, dtype=torch.float64), torch.tensor(width, dtype=torch.float64))


def density(positions: Coordinate, nodes: Tensor) -> Tensor:
    """The log-density of one of two equal coordinates at the nodes (N,)."""
    return positions.log_prob(nodes.view(-1, 1, 1).expand(-1, 1, 2)).squeeze(-1) / 2


def textbook(centre: float, width: float, nodes: Tensor, weights: Tensor) -> Tensor:
    square = -((nodes - centre) ** 2) / (2 * width**2)
    return square - (square + weights.log()).logsumexp(0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("centre", CENTRES)
class TestAgainstQuadrature:
    def test_log_prob(self, centre: float, width: float):
        nodes, weights = line()
        expected = textbook(centre, width, nodes, weights)
        far = abs(centre) - 1 > 25 * width  # where the density is a near by one, but for its tail
        counts = expected > expected.amax() - (1 if far else INFINITY)
        log_prob = density(both(centre, width), nodes)[counts]
        assert_close(log_prob, expected[counts], rtol=1e-10, atol=2e-3 if far else 1e-9)

    def test_it_is_a_density(self, centre: float, width: float):
        nodes, weights = line()
        assert_close((density(both(centre, width), nodes).exp() * weights).sum().item(), 1.0, rtol=1e-9, atol=0)

    def test_entropy(self, centre: float, width: float):
        nodes, weights = line()
        log_prob = density(both(centre, width), nodes)
        assert_close(both(centre, width).entropy().item(), -2 * (log_prob.exp() * log_prob * weights).sum().item())

    def test_divergence(self, centre: float, width: float):
        nodes, weights = line()
        p, q = both(centre, width), both(0.2, 0.4)
        log_p, log_q = density(p, nodes), density(q, nodes)
        assert_close(p.kl(q).item(), 2 * (log_p.exp() * (log_p - log_q) * weights).sum().item(), rtol=1e-6, atol=1e-9)
        assert_close(p.kl(p).item(), 0.0, rtol=0, atol=1e-7)

    def test_mode(self, centre: float, width: float):
        positions, nodes = both(centre, width), line()[0]
        assert (density(positions, nodes) <= positions.log_prob(positions.mode) / 2).all()

    def test_samples_follow_the_distribution(self, centre: float, width: float):
        nodes, weights = line()
        z = both(centre, width).sample((5000,)).flatten().sort().values
        mass = density(both(centre, width), nodes).exp() * weights
        cumulative = torch.from_numpy(np.interp(z.numpy(), nodes.numpy(), (mass.cumsum(0) - mass / 2).numpy()))
        distance = (cumulative - torch.arange(1, 10_001) / 10_000).abs().max()
        assert distance < 0.0225  # Kolmogorov and Smirnov: a false alarm in 10,000

    def test_gradients(self, centre: float, width: float):
        place = torch.tensor([[centre, centre / 2]], dtype=torch.float64, requires_grad=True)
        spread = torch.tensor([[width, 1.3 * width]], dtype=torch.float64, requires_grad=True)
        z = Coordinate(place, spread).sample((3,))
        log_prob = lambda place, spread: Coordinate(place, spread).log_prob(z)  # noqa: E731
        tolerances = {"eps": 1e-6 * min(width, 1), "atol": 1e-4, "rtol": 1e-4}
        assert gradcheck(log_prob, (place, spread), **tolerances)
        assert gradgradcheck(log_prob, (place, spread), **tolerances)


def test_further_outside_than_25_widths_the_slope_at_the_edge_remains():
    positions = both(50.0, 0.5)
    depth = torch.linspace(0, 0.01, 100, dtype=torch.float64)  # up to two mean depths
    log_prob = density(positions, 1 - depth)
    expected = -((50.0 - 1 + depth) ** 2) / (2 * 0.5**2)
    assert_close(log_prob - log_prob[0], expected - expected[0], rtol=0, atol=5e-3)
    assert_close(
        (log_prob[1] - log_prob[0]) / depth[1], -torch.tensor(49 / 0.25, dtype=torch.float64), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1e-38, 1e-30, 1e-10, 1e-3, 0.1, 1.0, 1e4, 1e10, 1e38])
@pytest.mark.parametrize("centre", EXTREMES)
def test_everything_is_finite(centre: float, width: float, dtype: torch.dtype):
    place = torch.full((3, 2), centre, dtype=dtype, requires_grad=True)
    spread = torch.full((3, 2), width, dtype=dtype, requires_grad=True)
    positions = Coordinate(place, spread)
    z = positions.rsample((100,))
    assert z.isfinite().all() and (z.abs() <= 1).all() and z.dtype == dtype
    for answer in (z, positions.log_prob(z.detach()), positions.entropy()):
        assert answer.isfinite().all()
        for gradient in torch.autograd.grad(answer.mean(), (place, spread)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("width", [1e-3, 0.1, 1.0, 1e4])
@pytest.mark.parametrize("centre", EXTREMES)
def test_second_gradients_are_finite(centre: float, width: float):
    place = torch.full((1, 2), centre, dtype=torch.float64, requires_grad=True)
    spread = torch.full((1, 2), width, dtype=torch.float64, requires_grad=True)
    positions = Coordinate(place, spread)
    for answer in (positions.log_prob(positions.sample((10,))), positions.entropy()):
        first = torch.autograd.grad(answer.mean(), (place, spread), create_graph=True)
        for second in torch.autograd.grad(sum(each.sum() for each in first), (place, spread)):
            assert second.isfinite().all()


def test_the_gradient_of_a_centre_outside_leads_back():
    centre = torch.full((1, 2), 40.0, requires_grad=True)
    z = torch.full((1, 2), 0.9)  # further inside than it expects to be
    Coordinate(centre, 0.3).log_prob(z).sum().backward()
    assert centre.grad is not None and (centre.grad < 0).all()


def test_pathwise_gradients():
    centre = torch.tensor([[0.0, 0.4], [-1.5, 3.0]], dtype=torch.float64, requires_grad=True)
    width = torch.tensor([[0.3], [0.8]], dtype=torch.float64, requires_grad=True)

    def draw(centre: Tensor, width: Tensor) -> Tensor:
        torch.manual_seed(3)
        return Coordinate(centre, width).rsample((4,))

    assert gradcheck(draw, (centre, width))
    assert gradgradcheck(draw, (centre, width))
    assert not Coordinate(centre, width).sample().requires_grad


def test_second_gradients_at_the_middle_of_the_image():
    centre = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)  # where the nearer edge changes
    z = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    answers = lambda centre: (Coordinate(centre, 0.5).log_prob(z), Coordinate(centre, 0.5).entropy())  # noqa: E731
    assert gradcheck(answers, centre)
    assert gradgradcheck(answers, centre)


def test_gradients_of_entropy_and_divergence():
    centre = torch.tensor([[0.1, -0.9], [1.4, 0.5]], dtype=torch.float64, requires_grad=True)
    width = torch.tensor([[0.2, 0.5], [0.3, 1.0]], dtype=torch.float64, requires_grad=True)
    other = Coordinate(torch.zeros(2, 2, dtype=torch.float64), 0.4)
    answers = lambda c, w: (Coordinate(c, w).entropy(), Coordinate(c, w).kl(other), other.kl(Coordinate(c, w)))  # noqa: E731
    assert gradcheck(answers, (centre, width))
    assert gradgradcheck(answers, (centre, width))


def test_outside_of_the_image_is_impossible():
    positions = both(0.0, 0.5)
    for z in ([1.01, 0.0], [0.0, -1.01], [INFINITY, 0.0]):
        assert positions.log_prob(torch.tensor([z], dtype=torch.float64)) == -INFINITY


def test_there_may_be_further_coordinates():
    centre, width = torch.tensor([[0.2, -0.9, 0.5]]), torch.tensor([0.1, 0.3, 0.7])
    positions = Coordinate(centre, width)
    z = positions.sample((5,))
    pairs = [Coordinate(centre[:, [i, i]], width[[i, i]]) for i in range(3)]
    expected = sum(each.log_prob(z[..., [i, i]]) / 2 for i, each in enumerate(pairs))
    torch.testing.assert_close(positions.log_prob(z), expected)
    torch.testing.assert_close(positions.entropy(), torch.stack([each.entropy() / 2 for each in pairs]).sum(0))


def test_a_width_broadcasts():
    centre = torch.randn(3, 4, 2)
    expected = Coordinate(centre, torch.full((3, 4, 2), 0.2))
    for width in (0.2, torch.tensor(0.2), torch.full((1,), 0.2), torch.full((2,), 0.2), torch.full((3, 1, 1), 0.2)):
        positions = Coordinate(centre, width)
        assert isinstance(positions.width, Tensor) and positions.width.shape == (3, 4, 2)
        assert_close(positions.log_prob(centre.clamp(-1, 1)), expected.log_prob(centre.clamp(-1, 1)))
    assert expected.batch_shape == (3, 4) and expected.event_shape == (2,)
    assert expected.sample((5,)).shape == (5, 3, 4, 2) and expected.log_prob(expected.sample((5,))).shape == (5, 3, 4)


def test_low_precision_is_computed_in_float64():
    positions = Coordinate(torch.tensor([[0.5, -2.0]], dtype=torch.bfloat16), 0.125)
    z = positions.sample((50,))
    exact = Coordinate(positions.centre.double(), positions.width.double())
    assert z.dtype == torch.bfloat16 and (z.abs() <= 1).all()
    assert_close(positions.log_prob(z), exact.log_prob(z.double()).bfloat16())


def test_nan_is_not_hidden():
    positions = Coordinate(torch.tensor([[math.nan, 0.0], [0.0, 0.0]]), 0.2)
    z = positions.sample()
    assert z[0, 0].isnan() and z[1].isfinite().all()
    assert positions.log_prob(torch.zeros(2, 2)).isnan().tolist() == [True, False]
    assert Coordinate(torch.zeros(1, 2), 0.0).log_prob(torch.zeros(1, 2)).isnan()


class Sensor:
    def read(self, z: Tensor) -> Tensor:
        return z.sum(-1, keepdim=True)


def test_reads_from_a_sensor():
    positions = both(0.1, 0.2)
    z = positions.sample((3,))
    assert_close(positions.gather(Sensor(), z), z.sum(-1, keepdim=True))


@pytest.mark.unchecked
def test_compiles_whole_and_maps():
    def answers(centre: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        positions = Coordinate(centre, 0.3)
        return positions.log_prob(z), positions.entropy(), positions.mode

    centre = torch.randn(3, 4, 2)
    z = Coordinate(centre, 0.3).sample()
    compiled = torch.compile(answers, fullgraph=True, backend="aot_eager")
    for got, mapped, wanted in zip(
        compiled(centre, z), torch.vmap(answers)(centre, z), answers(centre, z), strict=True
    ):
        assert_close(got, wanted)
        assert_close(mapped, wanted)
    draw = torch.compile(lambda centre: Coordinate(centre, 0.3).sample((2,)), fullgraph=True, backend="aot_eager")
    assert (draw(centre).abs() <= 1).all()
    sample = torch.vmap(lambda centre: Coordinate(centre, 0.3).sample(), randomness="different")
    assert sample(centre).shape == (3, 4, 2)


def test_pickles():
    positions = Coordinate(torch.randn(3, 2), torch.rand(3, 1))
    again = pickle.loads(pickle.dumps(positions))
    assert_close((again.centre, again.width), (positions.centre, positions.width))


@pytest.mark.unchecked
class TestErrors:
    def test_a_centre_of_one_number(self):
        expected = r"^Coordinate expected a centre of shape \(\*B, N\), N at least 2, but got \(4, 1\)\.$"
        with pytest.raises(ValueError, match=expected):
            Coordinate(torch.zeros(4, 1), 0.1)

    @pytest.mark.parametrize("shape", [(3,), (5, 2), (4, 2, 2)])
    def test_a_width_that_does_not_fit(self, shape: tuple[int, ...]):
        with pytest.raises(
            ValueError, match=r"^Coordinate expected a width that broadcasts to its centre, \(4, 2\), but"
        ):
            Coordinate(torch.zeros(4, 2), torch.ones(shape))

    def test_no_mean(self):
        sentence = r"^A Coordinate has no closed-form expectation of what is read: evaluation uses its `mode`"
        with pytest.raises(TypeError, match=sentence):
            _ = both(0.0, 0.1).mean
        with pytest.raises(TypeError, match=sentence):
            both(0.0, 0.1).expect(Sensor())

    def test_values_that_cannot_be_read_at_a_location(self):
        sentence = r"^Coordinate expected values with a method \.read\(z\), such as a glimpse sensor, but got Tensor\.$"
        with pytest.raises(TypeError, match=sentence):
            both(0.0, 0.1).gather(torch.zeros(1, 4, 2), torch.zeros(1, 2))


def test_no_pair_of_extremes_divides_by_zero():
    for (a, v), (b, w) in itertools.product(itertools.product(EXTREMES, (1e-3, 1e3)), repeat=2):
        p, q = both(a, v), both(b, w)
        assert p.kl(q).isfinite()
