"""Law 5 for the kernel of one look by the additive score: it equals the plain road in values and gradients."""

import examples
import pytest
import torch
from roads import Contexts, answers, check_contexts, plain_answers, taken
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.kernels.additive import look_cpu as look_numba

SIZES = {
    "no batch": ((), 7, 9),
    "batch": ((5,), 11, 37),
    "heads": ((2, 3), 5, 64),
    "one key": ((3,), 1, 100),
    "many keys": ((2,), 300, 16),
}
PARTS = (rg.Additive, rg.softmax, rg.mean)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the road for small sizes too."""
    monkeypatch.setattr(look_numba, "SMALLEST", 0)


def arguments(size: str) -> list[Tensor]:
    batch, places, width = SIZES[size]
    return [torch.randn(*batch, *shape) for shape in ((1, width), (places, width + 1), (places, 3))]


def look(width: int, mask: Tensor | None = None) -> Contexts:
    return Contexts(rg.Additive(width, width + 1, width + 3), mask=mask)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients(size: str, threads: int):
    torch.set_num_threads(threads)
    model, given = look(SIZES[size][-1]), arguments(size)
    assert taken(PARTS, lambda: model(*given))
    check_contexts(model, *given)


@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str):
    allowed = examples.MASKS[mask]()
    allowed = None if allowed is None else allowed.expand(2, 3, 4).unsqueeze(-2)
    check_contexts(look(5, allowed), *(torch.randn(2, 3, *shape) for shape in ((1, 5), (4, 6), (4, 2))))


def test_what_may_not_be_looked_at_is_not_read():
    query, keys, values = arguments("batch")
    mask = torch.arange(11) < torch.tensor([0, 1, 4, 10, 11]).view(-1, 1, 1)
    model = look(37, mask)
    clean = answers(model, query, keys, values)
    hidden = ~mask.mT
    for one, other in zip(
        answers(model, query, keys.masked_fill(hidden, torch.nan), values.masked_fill(hidden, torch.nan)),
        clean,
        strict=True,
    ):
        assert_close(one, other)
    assert (clean[0][0] == 0).all() and (clean[0][1:] != 0).all()
    assert all((grad[hidden.expand_as(grad)] == 0).all() for grad in clean[2:])


def test_large_scores():
    model = look(9)
    torch.nn.init.constant_(model.attention.score.energy.weight, 1e4)
    contexts, *grads = answers(model, *arguments("no batch"))
    assert contexts.isfinite().all() and all(grad.isfinite().all() for grad in grads)


def test_not_contiguous():
    wide = [each.repeat_interleave(2, -1)[..., ::2].transpose(0, 1) for each in arguments("heads")]
    check_contexts(look(64), *wide)


def test_the_buffers_may_hold_anything():
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        check_contexts(look(37, torch.rand(5, 1, 11) < 0.5), *arguments("batch"))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("what", [0, 1, 2])
def test_nan_stays_nan_where_it_is(what: int):
    given, model = arguments("batch"), look(37)
    given[what][1, 0] = torch.nan
    with rg.plain_road():
        wanted = model(*given).isnan()
    assert_close(model(*given).isnan(), wanted)
    assert wanted.any() and not wanted.all()


def test_nothing_to_do():
    contexts, *grads = answers(look(37), *(each[:0] for each in arguments("batch")))
    assert contexts.shape == (0, 1, 3) and all(grad.isfinite().all() for grad in grads)


def test_the_second_gradient_is_that_of_the_plain_road():
    model = look(37, torch.arange(11) < torch.tensor([1, 1, 4, 10, 11]).view(-1, 1, 1))

    def slopes(*given: Tensor) -> Tensor:
        first = torch.autograd.grad(model(*given).square().sum(), given, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    given = arguments("batch")
    for fast, plain in zip(answers(slopes, *given), plain_answers(slopes, *given), strict=True):
        assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_the_weights_can_be_asked_for_and_learned_from():
    model, (query, keys, values) = look(37), arguments("batch")

    def weights(query: Tensor, keys: Tensor) -> Tensor:
        return model.attention(query, model.attention.prepare(keys, values)).weights

    for fast, plain in zip(answers(weights, query, keys), plain_answers(weights, query, keys), strict=True):
        assert_close(fast, plain, rtol=1e-4, atol=1e-6)


class TestWhichRoad:
    def is_taken(self, model: Contexts, *given: Tensor) -> bool:
        return taken(PARTS, lambda: model(*given))

    def test_not_for_many_queries_or_draws(self):
        query, keys, values = arguments("batch")
        assert not self.is_taken(look(37), query.expand(-1, 2, -1), keys, values)
        assert not self.is_taken(look(37), torch.stack((query, query)), keys, values)

    def test_not_for_other_types(self):
        for dtype in (torch.float64, torch.bfloat16):
            assert not self.is_taken(look(37).to(dtype), *(each.to(dtype) for each in arguments("batch")))
        with torch.autocast("cpu", torch.bfloat16):
            assert not self.is_taken(look(37), *arguments("batch"))

    def test_not_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(look_numba, "SMALLEST", 10**9)
        assert not self.is_taken(look(37), *arguments("batch"))

    def test_not_with_hooks_or_another_energy(self):
        hooked, inner, other = look(37), look(37), look(37)
        hooked.attention.score.register_forward_hook(lambda *_: None)
        inner.attention.score.energy.register_forward_hook(lambda *_: None)
        other.attention.score.energy = torch.nn.Sequential(torch.nn.Linear(40, 1))
        assert not any(self.is_taken(each, *arguments("batch")) for each in (hooked, inner, other))

    def test_not_under_torch_func(self):
        query, keys, values = arguments("batch")
        model = look(37)
        gradient = torch.func.grad(lambda query: model(query, keys, values).sum())
        assert not taken(PARTS, lambda: gradient(query))


@pytest.mark.parametrize("wrong", ["value", "query", "keys", "energy", "values", "mask"])
def test_a_wrong_kernel_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch):
    right = look_numba._contexts
    mask, given = torch.rand(5, 1, 11) < 0.7, arguments("batch")

    def contexts(*given: Tensor) -> Tensor:
        named = dict(zip(("query", "keys", "energy", "values", "mask"), given, strict=True))
        if wrong == "mask":
            named[wrong] = torch.ones_like(named[wrong])
        elif wrong in named:
            named[wrong] = named[wrong].detach() + 0.99 * (named[wrong] - named[wrong].detach())
        return right(*named.values()) * (1.001 if wrong == "value" else 1)

    check_contexts(look(37, mask), *given)
    monkeypatch.setattr(look_numba, "_contexts", contexts)
    with pytest.raises(AssertionError):
        check_contexts(look(37, mask), *given)


@pytest.mark.unchecked
class TestTransforms:
    """Law 6, by the road."""

    def test_compile_and_its_gradient(self):
        torch._dynamo.reset()
        model, given = look(37, torch.rand(5, 1, 11) < 0.7), arguments("batch")
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for fast, wanted in zip(answers(compiled, *given), answers(model, *given), strict=True):
            assert_close(fast, wanted)
