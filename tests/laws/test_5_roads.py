"""Law 5: every fast road equals the plain road in values and gradients, on odd sizes, on non-contiguous input, under
every mask, in float64, float32, bfloat16 and float16, with a tolerance taken from the plain road's own error."""

from functools import partial

import examples
import pytest
import torch
from roads import answers, check_road, replaced, taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels import registry
from regard.kernels.dot import cpu_cuda as dot_sdpa

SIZES = {
    "no batch": ((), 3, 5, 4),
    "batch": ((2,), 3, 4, 5),
    "heads": ((2, 3), 7, 13, 8),
    "one query": ((3, 2), 1, 1, 1),
    "many": ((2, 2, 3), 63, 65, 16),
}


def arguments(size: str, dtype: torch.dtype) -> list[Tensor]:
    batch, queries, places, width = SIZES[size]
    shapes = [(queries, width), (places, width), (places, width)]
    return [torch.randn(*batch, *shape, dtype=torch.float64).to(dtype) for shape in shapes]


def check(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> None:
    check_road(lambda dtype: lambda *given: rg.attend(*given, mask=mask).context, query, keys, values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients(size: str, dtype: torch.dtype):
    check(*arguments(size, dtype))


@pytest.mark.parametrize("score", ["dot", "cosine", "cosine, learned sharpness", "bilinear"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_other_products(score: str, dtype: torch.dtype):
    query, keys, values = (torch.randn(2, *shape).to(dtype) for shape in ((7, 5), (13, 5), (13, 3)))
    part = examples.SCORES[score]()

    def contexts(dtype: torch.dtype):
        made = part.to(dtype) if isinstance(part, nn.Module) else part
        return lambda *given: rg.attend(*given, score=made, mask=torch.ones(7, 13).tril().bool()).context

    check_road(contexts, query, keys, values)
    kind = type(part) if isinstance(part, nn.Module) else part
    assert taken((kind, rg.softmax, rg.mean), lambda: contexts(dtype)(query, keys, values))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str, dtype: torch.dtype):
    query, keys, values = (each.to(dtype) for each in (*examples.tensors(2, 3, 5), *examples.tensors(2, 4, 5, count=2)))
    check(query, keys, values, examples.MASKS[mask]())


def test_a_row_that_may_look_at_nothing_reads_zero_with_gradients_of_zero():
    query, keys, values = arguments("batch", torch.float32)
    nothing = torch.zeros(2, 1, 4, dtype=torch.bool)
    context, *grads = answers(lambda *given: rg.attend(*given, mask=nothing).context, query, keys, values)
    assert (context == 0).all() and all((grad == 0).all() for grad in grads)


def test_not_contiguous():
    query, keys, values = (each.transpose(-1, -2) for each in arguments("heads", torch.float64))
    width = min(query.shape[-1], keys.shape[-1])
    check(query[..., ::2][..., : width // 2], *(each[..., ::2][..., : width // 2] for each in (keys, values)))


def test_draws_stand_in_front():
    query, keys, values = arguments("batch", torch.float64)
    check(query.expand(3, *query.shape), keys, values)


@pytest.mark.parametrize("autocast", [False, True])
def test_training_in_bfloat16_is_computed_in_float32_and_rounded(autocast: bool):
    leaves = [each.requires_grad_() for each in arguments("heads", torch.bfloat16)]
    wide = [each.detach().float().requires_grad_() for each in leaves]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        context = rg.attend(*leaves).context
    exact = rg.attend(*wide).context
    assert torch.equal(context, exact.bfloat16())
    grads = torch.autograd.grad(context.sum(), leaves)
    for grad, other in zip(grads, torch.autograd.grad(exact.sum(), wide), strict=True):
        assert torch.equal(grad, other.bfloat16())


def test_the_second_gradient_is_that_of_the_plain_road():
    leaves = [each.requires_grad_() for each in arguments("batch", torch.float64)]
    assert torch.autograd.gradgradcheck(lambda *leaves: rg.attend(*leaves).context, leaves)


def test_the_road_is_taken_for_its_triple_alone():
    def is_taken(**parts) -> bool:
        args = arguments("batch", torch.float32)
        return taken((rg.scaled_dot, rg.softmax, rg.mean), lambda: rg.attend(*args, **parts))

    assert is_taken()
    assert not is_taken(score=rg.biased(rg.scaled_dot, torch.zeros(1)))
    assert not is_taken(over=rg.sparsemax)
    assert not is_taken(read=rg.mode)


def test_a_score_that_is_hooked_or_overridden_has_no_key():
    class Scaled(nn.Module):
        def forward(self, query: Tensor, keys: Tensor) -> Tensor:
            return rg.scaled_dot(query, keys)

    class Louder(Scaled):
        pass

    assert registry._key(Scaled()) is Scaled and registry._key(Louder()) is Louder
    hooked, overridden = Scaled(), Scaled()
    hooked.register_forward_hook(lambda *_: None)
    overridden.forward = rg.dot
    assert registry._key(hooked) is None and registry._key(overridden) is None
    compares, backward = rg.Cosine(), rg.Cosine()
    compares.compare = rg.dot  # pyright: ignore[reportAttributeAccessIssue]
    backward.register_full_backward_hook(lambda *_: None)
    assert registry._key(compares) is None and registry._key(backward) is None


def test_arguments_that_are_filled_in_are_not_forgotten():
    assert registry._key(partial(rg.softmax, mask=None)) is partial


def test_weights_are_formed_when_asked_for():
    query, keys, values = arguments("batch", torch.float64)
    out = rg.attend(query, keys, values)
    assert out.formed is None
    assert_close(out.weights @ values, out.context)
    with pytest.raises(ValueError, match=r"asked for before detach\(\)"):
        _ = rg.attend(query, keys, values).detach().positions


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("heads", [(), (2,)])
def test_a_graph_of_one_gradient_alone(which: int, heads: tuple[int, ...]):
    leaves = [torch.randn(2, *heads, count, 4, dtype=torch.float64, requires_grad=True) for count in (3, 6, 6)]
    cost = rg.attend(*leaves).context.square().sum()
    wanted = torch.autograd.grad(cost, leaves[which], retain_graph=True)[0]
    assert_close(torch.autograd.grad(cost, leaves[which], create_graph=True)[0], wanted)


def test_a_graph_where_query_keys_and_values_are_one():
    leaf = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    cost = rg.attend(leaf, leaf, leaf).context.square().sum()
    wanted = torch.autograd.grad(cost, leaf, retain_graph=True)[0]
    assert_close(torch.autograd.grad(cost, leaf, create_graph=True)[0], wanted)


class TestMutants:
    """A road that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["scale", "gradient", "mask", "not written"])
    def test_a_wrong_road(self, wrong: str):
        def run(*given) -> tuple:
            *parts, query, keys, values, mask = given
            if wrong == "scale":
                return dot_sdpa.run(*parts, 1.01 * query, keys, values, mask)
            if wrong == "gradient":
                return dot_sdpa.run(*parts, query.detach() + 0.9 * (query - query.detach()), keys, values, mask)
            if wrong == "mask":
                return dot_sdpa.run(*parts, query, keys, values, None)
            return dot_sdpa.run(*given)[0] + torch.nan, None, None

        with replaced((rg.scaled_dot, rg.softmax, rg.mean), run), pytest.raises(AssertionError):
            check(*arguments("heads", torch.float32), torch.ones(7, 13, dtype=torch.bool).tril())
