"""Law 3: gradients and second gradients are right, and finite under every mask, under -inf, and at scores of 1e4."""

import math

import examples
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import regard as rg


def answers(positions: rg.Positions, values: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Everything that has a gradient."""
    return positions.mean, positions.log_prob(z), positions.entropy(), positions.expect(values)


def spread(scores: Tensor) -> Tensor:
    """The scores moved away from each other, so that no sparse mapping is at a kink and no ranking at a tie."""
    return (scores.argsort(-1).argsort(-1).double() * 0.37 + 0.1 * scores).detach().requires_grad_()


@pytest.mark.parametrize("mask", ["none", "padding", "nothing to see", "causal"])
@pytest.mark.parametrize("over", examples.OVERS)
def test_over(over: str, mask: str):
    part, queries, values = examples.OVERS[over](), examples.queries(over), examples.inputs()[2]
    scores, allowed = spread(torch.randn(2, queries, 4, dtype=torch.float64)), examples.MASKS[mask](queries)
    z = examples.positions(part, scores, allowed).mode
    function = lambda scores: answers(examples.positions(part, scores, allowed), values, z)  # noqa: E731
    structured = over.startswith(("tree", "constituency", "chain", "segments", "semi_markov"))
    fast = structured or mask != "none"  # in a random direction, instead of in each
    assert gradcheck(function, scores, fast_mode=fast)
    assert gradgradcheck(function, scores, fast_mode=True)


@pytest.mark.parametrize("kind", ["scores", "weights"])
def test_pointer(kind: str):
    values, scores = examples.inputs()[2].requires_grad_(), torch.randn(2, 3, 4, dtype=torch.float64)
    given = (scores if kind == "scores" else 0.8 * scores.softmax(-1)).requires_grad_()
    targets = examples.pointer(scores).targets
    z = rg.Pointer(**{kind: given}, targets=targets, count=4).sample((2,))

    def function(given: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        pointer = rg.Pointer(**{kind: given}, targets=targets, count=4)
        return *answers(pointer, values, z), pointer.log_weights.exp()

    assert gradcheck(function, (given, values))
    assert gradgradcheck(function, (given, values), fast_mode=True)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_of_a_pointer_are_finite_under_scores_of_minus_infinity(scale: float):
    leaf = (scale * torch.randn(2, 3, 4, dtype=torch.float64)).requires_grad_()
    scores = leaf.clone()
    scores[0, :, 0] = scores[1, 1] = -math.inf
    positions = examples.pointer(scores)
    total = sum(each.sum() for each in answers(positions, examples.inputs()[2], positions.sample()))
    (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
    assert gradient.isfinite().all() and second.isfinite().all()
    assert (gradient[0, :, 0] == 0).all() and (gradient[1, 1] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("mask", examples.MASKS)
@pytest.mark.parametrize("over", examples.OVERS)
def test_gradients_are_finite(over: str, mask: str, scale: float):
    part, queries, values = examples.OVERS[over](), examples.queries(over), examples.inputs()[2]
    scores = (scale * torch.randn(2, queries, 4, dtype=torch.float64)).requires_grad_()
    check_finite(part, scores, scores, examples.MASKS[mask](queries), values)


@pytest.mark.parametrize("over", examples.OVERS)
def test_gradients_are_finite_under_scores_of_minus_infinity(over: str):
    leaf = torch.randn(2, examples.queries(over), 4, dtype=torch.float64, requires_grad=True)
    scores = leaf.clone()
    scores[0, 1] = -math.inf
    scores[1, 2, 1:3] = -math.inf
    check_finite(examples.OVERS[over](), leaf, scores, None, examples.inputs()[2])


def check_finite(part, leaf: Tensor, scores: Tensor, mask: Tensor | None, values: Tensor) -> None:
    """First and second gradients of every answer are finite."""
    positions = examples.positions(part, scores, mask)
    total = sum(each.sum() for each in answers(positions, values, positions.sample()))
    (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
    assert gradient.isfinite().all()
    if gradient.requires_grad:
        (second,) = torch.autograd.grad(gradient.square().sum(), leaf, allow_unused=True)
        assert second is None or second.isfinite().all()


@pytest.mark.parametrize("score", examples.SCORES)
def test_score(score: str):
    part, (query, keys, _) = examples.SCORES[score](), examples.inputs()
    parameters = tuple(part.parameters()) if isinstance(part, torch.nn.Module) else ()
    function = lambda query, keys, *_: examples.at(part, rg.Step(query, keys))(query, keys)  # noqa: E731
    arguments = (query.requires_grad_(), keys.requires_grad_(), *parameters)
    assert gradcheck(function, arguments)
    assert gradgradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("read", examples.READS)
@pytest.mark.parametrize("mask", ["none", "nothing to see"])
def test_attend(read: str, mask: str):
    part, allowed = examples.READS[read](), examples.MASKS[mask]()
    arguments = [each.requires_grad_() for each in examples.inputs()]

    def function(query: Tensor, keys: Tensor, values: Tensor):
        torch.manual_seed(0)
        out = rg.attend(query, keys, values, read=part, mask=allowed)
        return out.context if out.log_prob is None else (out.context, out.log_prob)

    if read == "straight_through":  # whose gradient is not that of what it returns: that is its point
        context = function(*arguments)[0]
        expected = rg.attend(*arguments, mask=allowed).context
        for got, wanted in zip(
            *(torch.autograd.grad(c.sum(), arguments[:2]) for c in (context, expected)), strict=True
        ):
            torch.testing.assert_close(got, wanted)
        return
    assert gradcheck(function, arguments, fast_mode=mask != "none")
    assert gradgradcheck(function, arguments, fast_mode=True)


def test_a_zero_vector_has_a_finite_cosine():
    query, keys = torch.zeros(1, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    rg.Cosine()(query, keys).sum().backward()
    assert query.grad.isfinite().all() and keys.grad.isfinite().all()


class TestMutants:
    """Each breaks one clause of the law, which must then fail."""

    def test_the_entropy_by_xlogy(self, monkeypatch: pytest.MonkeyPatch):
        naive = lambda self: -(self.log_weights.exp() * self.log_weights).sum(-1)  # noqa: E731
        monkeypatch.setattr(rg.OneHot, "entropy", naive)
        scores = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
        with pytest.raises(AssertionError):
            check_finite(rg.softmax, scores, scores, rg.causal(3, 4), torch.ones(2, 4, 1, dtype=torch.float64))

    def test_a_mean_that_is_detached_in_part(self, monkeypatch: pytest.MonkeyPatch):
        right = rg.OneHot.mean.fget
        monkeypatch.setattr(rg.OneHot, "mean", property(lambda self: right(self) + 0.1 * right(self).detach()))
        scores = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
        with pytest.raises(RuntimeError, match="Jacobian mismatch"):
            gradcheck(lambda scores: rg.softmax(scores).mean, scores)
