"""Independent against torch's Bernoulli and against going through every labelling, in float64."""

import pickle

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Bernoulli, kl_divergence
from torch.testing import assert_close

from regard.positions import Independent

INFINITY = float("inf")
SCORES = torch.tensor([[0.3, -1.2, 2.0, 0.0], [40.0, -INFINITY, -30.0, 1.0]], dtype=torch.float64)


def test_agrees_with_bernoulli():
    positions, bernoulli = Independent(SCORES), Bernoulli(SCORES.sigmoid())
    z = positions.enumerate_support()
    assert z.shape == (16, 2, 4) and z.dtype == torch.int64
    assert_close(positions.log_prob(z).exp(), bernoulli.log_prob(z.double()).exp().prod(-1), atol=1e-7, rtol=0)
    assert_close(positions.mean, bernoulli.mean)
    assert_close(positions.entropy(), bernoulli.entropy().sum(-1), atol=1e-7, rtol=0)
    assert positions.batch_shape == (2,) and positions.event_shape == (4,)


def test_every_labelling_once():
    positions = Independent(SCORES)
    z = positions.enumerate_support()
    assert len({tuple(each) for each in z[:, 0].tolist()}) == 16
    probability = positions.log_prob(z).exp()
    assert_close(probability.sum(0), torch.ones(2, dtype=torch.float64))
    assert_close((probability.unsqueeze(-1) * positions.indicator(z)).sum(0), positions.mean)
    assert_close(-torch.xlogy(probability, probability).sum(0), positions.entropy())
    assert_close(positions.log_prob(positions.mode), positions.log_prob(z).amax(0))
    assert (positions.enumerate_support(expand=False).squeeze(1) == z[:, 0]).all()


def test_minus_infinity_is_never():
    positions = Independent(SCORES)
    assert (positions.sample((1000,))[:, 1, 1] == 0).all() and positions.mode[1, 1] == 0
    assert positions.relax(0.5)[1, 1] == 0 and positions.mean[1, 1] == 0
    assert positions.log_prob(torch.tensor([[0, 1, 0, 0]]).expand(2, 4)).tolist()[1] == -INFINITY


def test_divergence():
    p, q = Independent(SCORES), Independent(torch.randn(2, 4, dtype=torch.float64))
    z = p.enumerate_support()
    probability = p.log_prob(z).exp()
    expected = (probability * (p.log_prob(z) - q.log_prob(z)).masked_fill(probability == 0, 0)).sum(0)
    assert_close(p.kl(q), expected)
    assert_close(kl_divergence(p, p), torch.zeros(2, dtype=torch.float64))
    assert q.kl(p)[1] == INFINITY and q.kl(p)[0].isfinite()


def test_samples_follow_the_distribution():
    positions, draws = Independent(SCORES), 40_000
    z = positions.sample((draws,))
    deviation = (positions.mean * (1 - positions.mean) / draws).sqrt()
    assert ((z.double().mean(0) - positions.mean).abs() <= 5 * deviation).all()
    together = (z[:, 0, 0] * z[:, 0, 2]).double().mean()
    assert abs(together - positions.mean[0, 0] * positions.mean[0, 2]) < 0.0125


def test_a_relaxed_draw_becomes_a_draw():
    positions = Independent(SCORES.expand(500, 2, 4))
    torch.manual_seed(1)
    relaxed = positions.relax(1e-6)
    torch.manual_seed(1)
    assert_close(relaxed, positions.sample().double(), atol=1e-3, rtol=0)
    assert 0.1 < positions.relax(1.0)[:, 0, 3].mean() < 0.9


def test_reads_the_sum_of_the_places_with_label_one():
    positions, values = Independent(torch.randn(2, 3, 5)), torch.randn(2, 5, 4)
    z = positions.sample((7,))
    expected = torch.einsum("sbqk,bkv->sbqv", z.float(), values)
    assert_close(positions.gather(values, z), expected)
    assert_close(positions.expect(values), positions.mean @ values)

    class Reader:
        asked: Tensor

        def read(self, z: Tensor) -> Tensor:
            self.asked = z
            return torch.take_along_dim(values.expand(7, 2, 5, 4), z.unsqueeze(-1), -2)

    reader = Reader()
    assert_close(positions.gather(reader, z), expected)
    asked = reader.asked.unflatten(-1, (3, 5))
    chosen, places = z > 0, torch.arange(5)
    last = places.where(chosen, 0).amax((-2, -1), keepdim=True)
    assert (asked == places.where(chosen, last)).all()  # nothing is asked for that is not read


def test_gradients():
    scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    z, other = Independent(scores).sample(), Independent(torch.randn(2, 4, dtype=torch.float64))

    def answers(scores: Tensor) -> tuple[Tensor, ...]:
        positions = Independent(scores)
        return positions.mean, positions.log_prob(z), positions.entropy(), positions.kl(other)

    assert gradcheck(answers, scores)
    assert gradgradcheck(answers, scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_and_second_gradients_are_finite(dtype: torch.dtype):
    scores = torch.tensor([[1e4, -1e4, -INFINITY, 0.0], [-INFINITY] * 4], dtype=dtype, requires_grad=True)
    positions = Independent(scores)
    z = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]])
    for answer in (positions.log_prob(z), positions.mean.cos(), positions.entropy(), positions.relax(0.5).cos()):
        (gradient,) = torch.autograd.grad(answer.sum(), scores, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), scores)
        assert gradient.isfinite().all() and second.isfinite().all()


def test_low_precision_draws_without_bias():
    positions = Independent(torch.full((1, 40_000), -6.0, dtype=torch.bfloat16))
    assert abs(positions.sample().float().mean() - torch.tensor(-6.0).sigmoid()) < 0.0013  # five standard deviations
    assert positions.relax(0.5).dtype == torch.bfloat16


@pytest.mark.unchecked
def test_compiles_whole_and_maps():
    def answers(scores: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        positions = Independent(scores)
        return positions.mean, positions.log_prob(z), positions.entropy(), positions.mode

    scores = torch.randn(3, 2, 5)
    z = Independent(scores).sample()
    compiled = torch.compile(answers, fullgraph=True, backend="aot_eager")
    for got, mapped, wanted in zip(
        compiled(scores, z), torch.vmap(answers)(scores, z), answers(scores, z), strict=True
    ):
        assert_close(got, wanted)
        assert_close(mapped, wanted)
    assert torch.compile(lambda s: Independent(s).sample(), fullgraph=True, backend="aot_eager")(scores).shape == (
        3,
        2,
        5,
    )


def test_pickles():
    positions = Independent(SCORES)
    assert_close(pickle.loads(pickle.dumps(positions)).mean, positions.mean)


@pytest.mark.unchecked
def test_too_many_labellings():
    with pytest.raises(ValueError, match=r"^enumerate_support expected at most 100000 events, but got 1048576\.$"):
        Independent(torch.zeros(1, 20)).enumerate_support()
