"""Law 5: every fast road equals the plain road in values and gradients, on odd sizes, on non-contiguous input, under
every mask, in float64, float32, bfloat16 and float16, with a tolerance taken from the plain road's own error."""

import examples
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import saccade as sc
from saccade.kernels import registry, scaled_dot_sdpa

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


def answers(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """The context and its gradients."""
    leaves = [each.detach().requires_grad_() for each in (query, keys, values)]
    context = sc.attend(*leaves, mask=mask).context
    grads = torch.autograd.grad(context, leaves, torch.linspace(-1, 1, context.numel()).view_as(context).to(context))
    return [context, *grads]


def plain_answers(*args) -> list[Tensor]:
    """The same by the plain road."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_ROADS", {})
        return answers(*args)


def check_road(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> None:
    """The law: no further from float64 than twice the plain road in the same precision, and a few roundings."""
    exact = plain_answers(query.double(), keys.double(), values.double(), mask)
    plain, fast = plain_answers(query, keys, values, mask), answers(query, keys, values, mask)
    for truth, slow, quick in zip(exact, plain, fast, strict=True):
        allowed = 2 * (slow - truth).abs().max() + 16 * torch.finfo(query.dtype).eps * truth.abs().max()
        assert quick.dtype == query.dtype
        assert (quick - truth).abs().max() <= allowed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients(size: str, dtype: torch.dtype):
    check_road(*arguments(size, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str, dtype: torch.dtype):
    query, keys, values = (each.to(dtype) for each in (*examples.tensors(2, 3, 5), *examples.tensors(2, 4, 5, count=2)))
    check_road(query, keys, values, examples.MASKS[mask]())


def test_a_row_that_may_look_at_nothing_reads_zero_with_gradients_of_zero():
    query, keys, values = arguments("batch", torch.float32)
    context, *grads = answers(query, keys, values, torch.zeros(2, 1, 4, dtype=torch.bool))
    assert (context == 0).all() and all((grad == 0).all() for grad in grads)


def test_not_contiguous():
    query, keys, values = (each.transpose(-1, -2) for each in arguments("heads", torch.float64))
    width = min(query.shape[-1], keys.shape[-1])
    check_road(query[..., ::2][..., : width // 2], *(each[..., ::2][..., : width // 2] for each in (keys, values)))


def test_draws_stand_in_front():
    query, keys, values = arguments("batch", torch.float64)
    check_road(query.expand(3, *query.shape), keys, values)


def test_the_second_gradient_is_that_of_the_plain_road():
    leaves = [each.requires_grad_() for each in arguments("batch", torch.float64)]
    assert torch.autograd.gradgradcheck(lambda *leaves: sc.attend(*leaves).context, leaves)


def taken(monkeypatch: pytest.MonkeyPatch, *args, **parts) -> bool:
    """Whether a call takes the road."""
    calls = []
    road = registry.Road(scaled_dot_sdpa.suits, lambda *args: calls.append(0) or scaled_dot_sdpa.run(*args))
    monkeypatch.setitem(registry._ROADS, (sc.scaled_dot, sc.softmax, sc.mean, "cpu"), road)
    sc.attend(*args, **parts)
    return bool(calls)


def test_the_road_is_taken_for_its_triple_alone(monkeypatch: pytest.MonkeyPatch):
    args = arguments("batch", torch.float32)
    assert taken(monkeypatch, *args)
    assert not taken(monkeypatch, *args, score=sc.dot)
    assert not taken(monkeypatch, *args, over=sc.sparsemax)
    assert not taken(monkeypatch, *args, read=sc.mode)


def test_a_score_that_is_hooked_or_overridden_has_no_key():
    class Scaled(nn.Module):
        def forward(self, query: Tensor, keys: Tensor) -> Tensor:
            return sc.scaled_dot(query, keys)

    class Louder(Scaled):
        pass

    assert registry._key(Scaled()) is Scaled and registry._key(Louder()) is Louder
    hooked, overridden = Scaled(), Scaled()
    hooked.register_forward_hook(lambda *_: None)
    overridden.forward = sc.dot
    assert registry._key(hooked) is None and registry._key(overridden) is None


def test_weights_are_formed_when_asked_for():
    query, keys, values = arguments("batch", torch.float64)
    out = sc.attend(query, keys, values)
    assert out.formed is None
    assert_close(out.weights @ values, out.context)
    with pytest.raises(ValueError, match=r"asked for before detach\(\)"):
        _ = sc.attend(query, keys, values).detach().positions


class TestMutants:
    """A road that is wrong: the law must fail."""

    @pytest.mark.parametrize("wrong", ["scale", "gradient", "mask", "not written"])
    def test_a_wrong_road(self, wrong: str, monkeypatch: pytest.MonkeyPatch):
        def run(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
            if wrong == "scale":
                return scaled_dot_sdpa.run(1.01 * query, keys, values, mask)
            if wrong == "gradient":
                return scaled_dot_sdpa.run(query.detach() + 0.9 * (query - query.detach()), keys, values, mask)
            if wrong == "mask":
                return scaled_dot_sdpa.run(query, keys, values, None)
            return scaled_dot_sdpa.run(query, keys, values, mask) + torch.full_like(query, float("nan"))

        road = registry.Road(scaled_dot_sdpa.suits, run)
        monkeypatch.setitem(registry._ROADS, (sc.scaled_dot, sc.softmax, sc.mean, "cpu"), road)
        with pytest.raises(AssertionError):
            check_road(*arguments("heads", torch.float32), torch.ones(7, 13, dtype=torch.bool).tril())
