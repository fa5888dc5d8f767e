"""The sparse mappings against the entmax package, in float64, and where that package fails."""

import math
from contextlib import nullcontext
from unittest import mock

import entmax
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import regard as rg
from regard.kernels import registry
from regard.over.sparse import entmax_weights, plain_weights, sparsemax_weights

ALPHAS = (1.0, 1.01, 1.1, 1.3, 1.5, 1.8, 1.99, 2.0, 2.3, 3.0)
INFINITY = float("inf")


def by_the_package(scores: Tensor, alpha: float) -> Tensor:
    if alpha == 1:
        return scores.softmax(-1)
    exact = {1.5: entmax.entmax15, 2.0: entmax.sparsemax}
    return exact[alpha](scores, -1) if alpha in exact else entmax.entmax_bisect(scores, alpha, -1, n_iter=100)


def slow_row(places: int, kept: float, step: float) -> Tensor:
    """Scores of which each step of Newton's method drops the same share."""
    scores, level, left = [0.0], -1.0, places
    while left >= 1:
        dropped = max(1, int(left * (1 - kept)))
        scores += [level + 1e-6 * step] * dropped
        level, left = level + step, left - dropped
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e4])
@pytest.mark.parametrize("alpha", ALPHAS)
class TestValues:
    def test_float64(self, alpha: float, scale: float):
        scores = scale * torch.randn(20, 50, dtype=torch.float64)
        assert_close(entmax_weights(scores, alpha), by_the_package(scores, alpha), rtol=0, atol=1e-12)

    def test_float32(self, alpha: float, scale: float):
        scores = scale * torch.randn(20, 50)
        exact = entmax_weights(scores.double(), alpha).float()
        # above 2 the edge of the support is steep: the rounding of a score by eps moves a weight by eps^(1/(alpha-1))
        assert_close(entmax_weights(scores, alpha), exact, rtol=0, atol=1e-6 if alpha <= 2 else 1e-4)

    def test_sums_to_one_and_keeps_the_order(self, alpha: float, scale: float):
        scores = scale * torch.randn(20, 50)
        weights = entmax_weights(scores, alpha)
        assert_close(weights.sum(-1), torch.ones(20))
        assert (weights >= 0).all()
        assert (weights.gather(-1, scores.argsort(-1)).diff() >= 0).all()


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.8, 2.0])
@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1.0])
def test_many_places(alpha: float, scale: float):
    scores = scale * torch.randn(1, 100_000)
    assert_close(entmax_weights(scores, alpha), entmax_weights(scores.double(), alpha).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.7, 1.9, 1.99, 1.999, 2.0])
def test_rows_that_are_slow_for_newton(alpha: float):
    for kept in (0.3, 0.5, 0.6, 0.7, 0.8):
        for step in (1e-6, 1e-4, 1e-2):
            scores = slow_row(10_000, kept, step)
            assert_close(entmax_weights(scores, alpha), by_the_package(scores, alpha), rtol=0, atol=1e-12)


def test_a_known_answer():
    assert_close(sparsemax_weights(torch.tensor([[1.0, 0.5, -1.0]])), torch.tensor([[0.75, 0.25, 0.0]]))
    scores = torch.randn(4, 7)
    assert (sparsemax_weights(scores) == entmax_weights(scores, 2.0)).all()
    assert_close(entmax_weights(scores.double(), 1 + 1e-9), scores.double().softmax(-1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0, 3.0])
class TestEveryAlpha:
    def test_gradients(self, alpha: float):
        scores = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
        assert gradcheck(lambda scores: entmax_weights(scores, alpha), scores)
        assert gradgradcheck(lambda scores: entmax_weights(scores, alpha), scores)

    def test_gradient_of_the_package(self, alpha: float):
        scores, direction = torch.randn(2, 20, 50, dtype=torch.float64).requires_grad_().unbind(0)
        ours, theirs = (
            torch.autograd.grad(each, scores, direction)[0]
            for each in (entmax_weights(scores, alpha), by_the_package(scores, alpha))
        )
        assert_close(ours, theirs, rtol=1e-7, atol=1e-10)

    def test_minus_infinity_has_no_weight_and_a_blocked_row_none(self, alpha: float):
        scores = torch.randn(3, 6, dtype=torch.float64)
        scores[0, 2:4] = -INFINITY
        scores[1] = -INFINITY
        scores.requires_grad_()
        weights = entmax_weights(scores, alpha)
        assert (weights[1] == 0).all() and (weights[0, 2:4] == 0).all()
        allowed = scores[0, [0, 1, 4, 5]].unsqueeze(0)
        assert_close(weights[0, [0, 1, 4, 5]], entmax_weights(allowed, alpha)[0])
        (gradient,) = torch.autograd.grad(weights.cos().sum(), scores, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), scores)
        assert gradient.isfinite().all() and second.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gradients_are_finite_at_any_size(self, alpha: float, dtype: torch.dtype):
        rows = [[1e4, 0, -1e4, 1], [1e4, 1e4, 1e4, 1e4], [0, 0, 0, 0], [1e-30, 0, 0, 0], [0, -1, -1e30, -INFINITY]]
        scores = torch.tensor(rows, dtype=dtype, requires_grad=True)
        weights = entmax_weights(scores, alpha)
        (gradient,) = torch.autograd.grad(weights.cos().sum(), scores, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), scores)
        for each in (weights, gradient, second):
            assert each.isfinite().all()

    def test_low_precision_is_computed_in_float32(self, alpha: float):
        for dtype in (torch.bfloat16, torch.float16):
            scores = torch.randn(3, 40).to(dtype)
            assert_close(entmax_weights(scores, alpha), entmax_weights(scores.float(), alpha).to(dtype))
        low = torch.full((1, 4), -1000.0, dtype=torch.float16)  # where the package gives NaN
        assert_close(entmax_weights(low, alpha), torch.full((1, 4), 0.25, dtype=torch.float16))

    def test_nan_is_not_hidden(self, alpha: float):
        scores = torch.tensor([[0.0, math.nan, 1.0], [0.0, 1.0, 2.0]])
        weights = entmax_weights(scores, alpha)
        assert weights[0].isnan().all() and weights[1].isfinite().all()

    def test_a_single_place_has_all_the_weight(self, alpha: float):
        assert (entmax_weights(torch.randn(5, 1), alpha) == 1).all()

    @pytest.mark.unchecked
    def test_compiles_whole_and_maps(self, alpha: float):
        function = lambda scores: entmax_weights(scores, alpha)  # noqa: E731
        scores = torch.randn(3, 6, dtype=torch.float64)
        assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(scores), function(scores))
        assert_close(torch.vmap(function)(scores), function(scores))
        derivative = torch.vmap(torch.func.jacrev(function))(scores)
        assert_close(torch.vmap(torch.func.jacfwd(function))(scores), derivative)
        assert_close(torch.vmap(torch.func.grad(lambda s: function(s)[0]))(scores), derivative[:, 0])


@pytest.mark.parametrize("alpha", [0.5, math.nan, INFINITY])
def test_an_alpha_below_one_is_an_error(alpha: float):
    with pytest.raises(ValueError, match=r"^entmax_weights expected an alpha from 1 to 4, but got (0.5|nan|inf)\.$"):
        entmax_weights(torch.zeros(1, 3), alpha)


@pytest.mark.parametrize("shape", [(), (3, 1), (2, 1, 1)])
def test_a_learned_alpha_has_exact_derivatives(shape: tuple[int, ...]):
    scores = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    alphas = (1.01 + 1.4 * torch.rand(shape, dtype=torch.float64)).requires_grad_()
    assert gradcheck(entmax_weights, (scores, alphas))
    assert gradgradcheck(entmax_weights, (scores, alphas), fast_mode=True)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_learned_alpha_gives_the_same_weights(alpha: float):
    scores = 3 * torch.randn(20, 50, dtype=torch.float64)
    learned = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    assert_close(entmax_weights(scores, learned), entmax_weights(scores, alpha), rtol=0, atol=1e-11)
    if alpha > 1:
        (ours,) = torch.autograd.grad(entmax_weights(scores, learned)[:, 0].sum(), learned)
        (theirs,) = torch.autograd.grad(entmax.entmax_bisect(scores, learned, n_iter=100)[:, 0].sum(), learned)
        assert_close(ours, theirs, rtol=1e-6, atol=1e-9 / (alpha - 1) ** 2)


def test_the_gradient_of_alpha_at_softmax_is_its_limit():
    """p_k (sum_j p_j log^2 p_j - log^2 p_k) / 2."""
    scores = torch.randn(5, 7, dtype=torch.float64)
    p = scores.softmax(-1)
    limit = p * ((p * p.log().square()).sum(-1, keepdim=True) - p.log().square()) / 2
    for near in (0, 1e-12, 1e-7):
        alpha = torch.tensor(1 + near, dtype=torch.float64)
        found = torch.func.jacrev(lambda alpha: entmax_weights(scores, alpha))(alpha)
        assert_close(found, limit, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0])
def test_any_dimension(alpha: float, dim: int):
    scores = torch.randn(3, 4, 5)
    wanted = entmax_weights(scores.transpose(dim, -1), alpha).transpose(dim, -1)
    assert_close(entmax_weights(scores, alpha, dim), wanted)
    learned = torch.full([1 if d == dim % 3 else size for d, size in enumerate(scores.shape)], alpha)
    assert_close(entmax_weights(scores, learned, dim), wanted)


def test_an_alpha_of_another_shape_is_an_error():
    for shape in ((3,), (2, 1), (1, 1, 4, 1)):
        with pytest.raises(
            ValueError, match=r"^entmax_weights expected an alpha that broadcasts to \(5, 4, 1\), but got"
        ):
            entmax_weights(torch.zeros(5, 4, 3), torch.ones(shape))


@pytest.mark.parametrize("alpha", [1.01, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("scale", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_sum_to_one_up_to_the_largest_alpha(alpha: float, scale: float, dtype: torch.dtype):
    scores = scale * torch.randn(500, 64, dtype=dtype)
    for weights in (entmax_weights(scores, alpha), plain_weights(scores, alpha)):
        assert_close(weights.sum(-1), torch.ones(500, dtype=dtype), rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [1.01, 1.5, 2.0, 2.2, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("spread", [0.0, 1e-7, 1.0])
def test_gradients_are_finite_where_places_lie_outside_of_the_support(alpha: float, spread: float, dtype: torch.dtype):
    """Equal and nearly equal scores beside masked ones, by a fixed and a learned alpha, by the kernel and without."""
    for places, allowed in ((300, 246), (9, 1), (7, 0)):
        scores = (spread * torch.randn(2, places, dtype=dtype)).requires_grad_()
        learned = torch.nn.Parameter(torch.tensor(alpha, dtype=dtype))
        for over in (rg.entmax(learned), rg.entmax(min(alpha, 4.0))):
            for road in (nullcontext(), mock.patch.dict(registry._ROADS, clear=True)):
                with road:
                    weights = over(scores, torch.arange(places) < allowed).mean
                gradients = torch.autograd.grad(weights[0, 0] + weights[1, -1], [scores, learned], allow_unused=True)
                assert_close(weights.sum(-1), torch.full_like(weights[:, 0], float(allowed > 0)), rtol=1e-3, atol=1e-3)
                assert all(each is None or each.isfinite().all() for each in gradients)
                assert (gradients[0][:, allowed:] == 0).all()
