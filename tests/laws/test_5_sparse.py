"""Law 5 for the sparse weights' kernels on the CPU: they equal the plain road in values and gradients."""

from functools import partial

import examples
import pytest
import torch
from roads import answers, check_road, plain_answers, replaced, taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.sparse import cpu as sparse_numba

ALPHAS = (1.05, 1.1, 1.3, 1.5, 1.8, 2.0)
SIZES = {"one row": (7,), "odd": (3, 33), "heads": (2, 3, 5, 13), "one place": (4, 1), "many": (20, 1001)}
INFINITY = float("inf")
KEY = (rg.entmax_weights,)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the road for small sizes too."""
    monkeypatch.setattr(sparse_numba, "SMALLEST", 1)


def check(alpha: float, *given: Tensor, dim: int = -1) -> None:
    check_road(lambda dtype: partial(rg.entmax_weights, alpha=alpha, dim=dim), *given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_values_and_gradients(alpha: float, size: str, dtype: torch.dtype):
    check(alpha, 2 * torch.randn(SIZES[size]).to(dtype))


@pytest.mark.parametrize("alpha", [1.0, 1.001, *ALPHAS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_learned_alpha(alpha: float, dtype: torch.dtype):
    check_road(lambda _: rg.entmax_weights, torch.randn(2, 7, 13).to(dtype), torch.full((7, 1), alpha).to(dtype))


def test_an_alpha_for_each_head():
    alphas = torch.tensor([1.0, 1.2, 1.5, 1.9, 2.0, 2.5]).view(6, 1, 1)
    check_road(lambda _: rg.entmax_weights, torch.randn(2, 6, 5, 13), alphas)
    weights = rg.entmax_weights(scores := torch.randn(2, 6, 5, 13), alphas)
    for head, alpha in enumerate(alphas.flatten().tolist()):
        assert_close(weights[:, head], rg.entmax_weights(scores[:, head], alpha), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_threads(alpha: float, threads: int):
    torch.set_num_threads(threads)
    try:
        check(alpha, torch.randn(7, 33))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_sizes_of_scores(alpha: float, scale: float):
    check(alpha, scale * torch.randn(20, 65))


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.8, 2.0])
@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1.0])
def test_many_places(alpha: float, scale: float):
    check(alpha, scale * torch.randn(2, 100_000))


@pytest.mark.parametrize("alpha", [1.05, 1.3, 1.5, 1.8, 2.0])
def test_scores_that_are_large_lose_nothing(alpha: float):
    few = torch.tensor([[0.0, 0.25, 0.125, -0.5]])
    assert_close(rg.entmax_weights(few + 2.0**17, alpha), rg.entmax_weights(few, alpha), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dim", [0, 1, -2])
def test_other_dimensions(dim: int):
    check(1.5, torch.randn(5, 7, 3), dim=dim)
    assert_close(rg.sparsemax_weights(torch.randn(5, 7, 3), dim=dim).sum(dim).flatten(), torch.ones(15 if dim else 21))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_not_contiguous(alpha: float):
    scores = torch.randn(13, 10, 3)
    for each in (scores.mT, scores[:, ::2], scores[0, :, :1].expand(10, 33)):
        check(alpha, each)


@pytest.mark.parametrize("over", ["sparsemax", "entmax(1.3)", "entmax(1.5)", "entmax, learned alpha"])
@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str, over: str):
    def weights(dtype: torch.dtype):
        part = examples.OVERS[over]().to(dtype) if over != "sparsemax" else rg.sparsemax
        return lambda scores: part(scores, examples.MASKS[mask]()).mean

    check_road(weights, torch.randn(2, 3, 4))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_row_without_places_has_no_weights_and_no_gradient(alpha: float):
    scores = torch.randn(3, 9)
    scores[1], scores[2, :4] = -INFINITY, -INFINITY
    weights, gradient = answers(partial(rg.entmax_weights, alpha=alpha), scores)
    assert (weights[1] == 0).all() and (gradient[1] == 0).all()
    assert (weights[2, :4] == 0).all() and (gradient[2, :4] == 0).all()
    assert weights.isfinite().all() and gradient.isfinite().all()
    learned = torch.full((3, 1), alpha, requires_grad=True)
    rg.entmax_weights(scores, learned).square().sum().backward()
    assert learned.grad.isfinite().all() and learned.grad[1] == 0


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, INFINITY])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_nan_stays_nan_in_its_row(alpha: float, bad: float):
    scores = torch.randn(3, 40)
    scores[1, 17] = bad
    weights, gradient = answers(partial(rg.entmax_weights, alpha=alpha), scores)
    assert weights[1].isnan().all() and gradient[1].isnan().any()
    assert weights[[0, 2]].isfinite().all() and gradient[[0, 2]].isfinite().all()


def test_an_alpha_below_one_gives_nan():
    alphas = torch.tensor([[0.5], [1.5], [torch.nan]])
    scores = torch.randn(3, 9)
    for weights in (rg.entmax_weights(scores, alphas), rg.entmax_weights(scores.double(), alphas)):
        assert weights[[0, 2]].isnan().all() and weights[1].isfinite().all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_buffers_may_hold_anything(alpha: float):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check(alpha, torch.randn(7, 33))
        check_road(lambda _: rg.entmax_weights, torch.randn(7, 33), torch.full((7, 1), alpha))
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_to_do():
    for shape in ((0, 5), (2, 0, 5)):
        weights, gradient = answers(partial(rg.entmax_weights, alpha=1.5), torch.randn(shape))
        assert weights.shape == gradient.shape == shape


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0, torch.tensor(1.4)])
def test_the_second_gradient_is_that_of_the_plain_road(alpha: float | Tensor):
    def slopes(*given: Tensor) -> Tensor:
        leaves = [each.requires_grad_() for each in given]
        weights = rg.entmax_weights(leaves[0], leaves[1] if len(leaves) > 1 else alpha)
        first = torch.autograd.grad(weights.cos().sum(), leaves, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    given = (torch.randn(5, 9), *([alpha] if isinstance(alpha, Tensor) else []))
    for fast, plain in zip(answers(slopes, *given), plain_answers(slopes, *given), strict=True):
        assert_close(fast, plain, rtol=1e-4, atol=1e-5)


class TestWhichRoad:
    scores = torch.randn(8, 16)

    def taken(self, function=partial(rg.entmax_weights, alpha=1.5), scores: Tensor | None = None) -> bool:  # noqa: B008
        return taken(KEY, lambda: function(self.scores if scores is None else scores))

    def test_it_is_taken(self):
        assert self.taken() and self.taken(rg.sparsemax_weights) and self.taken(rg.sparsemax)
        assert self.taken(rg.entmax(1.3)) and self.taken(rg.entmax(nn.Parameter(torch.tensor(1.3))))
        assert self.taken(scores=self.scores.bfloat16())
        assert self.taken(lambda scores: rg.attend(scores, scores, scores, over=rg.sparsemax).context)

    def test_not_for_float64(self):
        assert not self.taken(scores=self.scores.double())

    def test_not_for_softmax(self):
        assert not self.taken(rg.entmax(1.0)) and not self.taken(rg.softmax)

    def test_not_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sparse_numba, "SMALLEST", 10**9)
        assert not self.taken()

    def test_not_under_torch_func(self):
        assert not self.taken(torch.func.grad(lambda scores: rg.sparsemax_weights(scores).square().sum()))
        assert not self.taken(torch.func.vmap(rg.sparsemax_weights))


class TestMutants:
    """A kernel that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["value", "scores", "alpha", "mask", "not written"])
    def test_a_wrong_kernel(self, wrong: str):
        def run(function: object, scores: Tensor, alpha: Tensor) -> Tensor:
            partly = lambda tensor: tensor.detach() + 0.99 * (tensor - tensor.detach())  # noqa: E731
            scores = partly(scores) if wrong == "scores" else scores
            alpha = partly(alpha) if wrong == "alpha" else alpha
            scores = scores.clamp(min=-1) if wrong == "mask" else scores
            weights = sparse_numba.run(function, scores, alpha) * (1.001 if wrong == "value" else 1)
            return weights + torch.full_like(weights, torch.nan) if wrong == "not written" else weights

        scores = torch.randn(7, 33).masked_fill(torch.arange(33) > 20, -INFINITY)
        check_road(lambda _: rg.entmax_weights, scores, torch.full((7, 1), 1.3))
        with replaced(KEY, run), pytest.raises(AssertionError):
            check_road(lambda _: rg.entmax_weights, scores, torch.full((7, 1), 1.3))


class Weights(nn.Module):
    """Scores to weights, by a fixed and a learned alpha."""

    def __init__(self):
        super().__init__()
        self.fixed = rg.entmax(1.5)
        self.learned = rg.entmax(nn.Parameter(torch.tensor([1.2, 1.9]).view(2, 1, 1)))

    def forward(self, scores: Tensor) -> Tensor:
        return rg.sparsemax(scores).mean + self.fixed(scores).mean + self.learned(scores).mean


@pytest.mark.unchecked
class TestTransforms:
    """Law 6, by the road."""

    def gradients(self, function, model: nn.Module, scores: Tensor) -> list[Tensor]:
        leaves = [scores.detach().requires_grad_(), *model.parameters()]
        weights = function(leaves[0])
        return [weights, *torch.autograd.grad(weights.cos().sum(), leaves)]

    def test_compile_and_its_gradient(self):
        torch._dynamo.reset()
        model, scores = Weights(), torch.randn(3, 2, 5, 9)
        fast = self.gradients(torch.compile(model, fullgraph=True, backend="aot_eager"), model, scores)
        assert_close(fast, self.gradients(model, model, scores))

    def test_compile_without_gradients(self):
        torch._dynamo.reset()
        model, scores = Weights().requires_grad_(False), torch.randn(3, 2, 5, 9)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_close(compiled(scores), model(scores))

    def test_autocast(self):
        model, scores = Weights(), torch.randn(3, 2, 5, 9)
        with torch.autocast("cpu", torch.bfloat16):
            weights, *_ = answers(model, scores)
            plain, *_ = plain_answers(model, scores)
        assert weights.dtype == plain.dtype
        assert_close(weights, plain)

    def test_forward_derivatives(self):
        model, scores = Weights(), torch.randn(3, 2, 5, 9)
        direction, step = torch.randn_like(scores), 1e-3
        along = torch.func.jvp(model, (scores,), (direction,))[1]
        difference = (model(scores + step * direction) - model(scores - step * direction)) / (2 * step)
        assert_close(along, difference, rtol=2e-2, atol=2e-3)

    def test_inference_mode(self):
        model, scores = Weights(), torch.randn(3, 2, 5, 9)
        with torch.inference_mode():
            weights = model(scores)
        assert_close(weights, model(scores))
