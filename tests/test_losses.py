"""The losses of sparse weights, against the entmax package and against what defines them."""

import entmax
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import cross_entropy, one_hot
from torch.testing import assert_close

import regard as rg

ALPHAS = (1.0, 1.2, 1.5, 2.0, 2.5)
INFINITY = float("inf")


def given(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * torch.randn(40, 9, dtype=dtype), torch.randint(9, (40,))


def test_the_package():
    scores, target = given()
    assert_close(rg.sparsemax_loss(scores, target), entmax.sparsemax_loss(scores, target))
    assert_close(rg.entmax_loss(scores, target, 1.5), entmax.entmax15_loss(scores, target))
    assert_close(rg.entmax_loss(scores, target, 1.2), entmax.entmax_bisect_loss(scores, target, 1.2))
    assert_close(rg.entmax_loss(scores, target, 1.0), cross_entropy(scores, target, reduction="none"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_gradient_is_weights_less_target(alpha: float, dtype: torch.dtype):
    scores, target = given(dtype)
    for factor in (1, 1e4):
        leaf = (factor * scores).requires_grad_()
        (gradient,) = torch.autograd.grad(rg.entmax_loss(leaf, target, alpha).sum(), leaf)
        wanted = rg.entmax_weights(leaf, alpha) - one_hot(target, 9)
        assert_close(gradient, wanted, rtol=0, atol=1e-9 if dtype == torch.float64 else 5e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_derivatives(alpha: float):
    scores, target = (each[:5] for each in given())
    scores.requires_grad_()
    assert gradcheck(lambda scores: rg.entmax_loss(scores, target, alpha), scores)
    assert gradgradcheck(lambda scores: rg.entmax_loss(scores, target, alpha), scores, fast_mode=True)
    learned = torch.full((5, 1), max(alpha, 1.01), dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *leaves: rg.entmax_loss(leaves[0], target, leaves[1]), (scores, learned), fast_mode=True)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_learned_alpha_is_the_same_loss(alpha: float):
    scores, target = given()
    assert_close(rg.entmax_loss(scores, target, torch.tensor(alpha)), rg.entmax_loss(scores, target, alpha))


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_it_is_zero_beyond_a_margin_and_positive_elsewhere(alpha: float):
    scores, target = given()
    losses = rg.entmax_loss(scores, target, alpha)
    sure = rg.entmax_weights(scores, alpha).gather(-1, target.unsqueeze(-1)).squeeze(-1) == 1
    assert (losses > 1e-12).equal(~sure) and sure.any() and not sure.all()


def test_places_that_may_not_be_looked_at():
    scores, target = given()
    scores[:, 3:6], target = -INFINITY, target.clamp(max=2)
    scores[7] = -INFINITY
    scores.requires_grad_()
    losses = rg.entmax_loss(scores, target, 1.5)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert losses.isfinite().all() and gradient.isfinite().all()
    assert losses[7] == 0 and (gradient[7] == 0).all() and (gradient[:, 3:6] == 0).all()


def test_low_precision_is_computed_in_float32():
    scores, target = given(torch.bfloat16)
    wanted = rg.entmax_loss(scores.float(), target, 1.5).bfloat16()
    assert (rg.entmax_loss(scores, target, 1.5) == wanted).all()


def test_by_the_kernel():
    scores, target = torch.randn(500, 40, requires_grad=True), torch.randint(40, (500,))
    for alpha in ALPHAS:
        found, exact = (rg.entmax_loss(each, target, alpha) for each in (scores, scores.double()))
        assert_close(found, exact.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.unchecked
@pytest.mark.parametrize("alpha", ALPHAS)
def test_compiles_whole(alpha: float):
    torch._dynamo.reset()
    function = torch.compile(lambda *given: rg.entmax_loss(*given, alpha), fullgraph=True, backend="aot_eager")
    scores, target = given()
    assert_close(function(scores, target), rg.entmax_loss(scores, target, alpha))


@pytest.mark.unchecked
def test_a_target_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"target expected the shape \(2,\), but got \(3,\)\."):
        rg.entmax_loss(torch.zeros(2, 4), torch.zeros(3, dtype=torch.long), 1.5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_an_ignored_label_has_no_loss_and_no_gradient(alpha: float):
    scores, target = given()
    scores[3] = torch.nan
    scores.requires_grad_()
    target[2:5] = -100
    losses = rg.entmax_loss(scores, target, alpha)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert (losses[2:5] == 0).all() and (gradient[2:5] == 0).all() and gradient.isfinite().all()
    kept = target != -100
    assert_close(losses[kept], rg.entmax_loss(scores[kept], target[kept], alpha))
    assert_close(rg.entmax_loss(scores, target.where(kept, 7), alpha, ignore_index=7)[2:5], losses[2:5])
    assert_close(rg.sparsemax_loss(scores, target, -100), rg.entmax_loss(scores, target, 2.0))


@pytest.mark.unchecked
@pytest.mark.parametrize("label", [-1, 9, -101])
def test_a_label_that_is_none_is_refused(label: int):
    scores, target = given()
    target[5] = label
    with pytest.raises(ValueError, match=rf"target expected labels from 0 to 8, but got {label}\."):
        rg.sparsemax_loss(scores, target)
