"""Law 5 for the kernel of one look by dot products, with its weights: it equals the plain road."""

import examples
import pytest
import torch
from roads import answers, check_road, plain_answers, taken
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.kernels.dot import look_cpu
from regard.reads import weighed

SIZES = {"no batch": ((), 7, 9), "batch": ((5,), 11, 37), "heads": ((2, 3), 5, 64), "one key": ((3,), 1, 100)}


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the road for small sizes too."""
    monkeypatch.setattr(look_cpu, "SMALLEST", 0)


def arguments(size: str) -> list[Tensor]:
    batch, places, width = SIZES[size]
    return [torch.randn(*batch, *shape) for shape in ((1, width), (places, width), (places, 3))]


def look(mask: Tensor | None = None, score=rg.dot):
    """Query, keys and values to the context and, beside it, the weights."""

    def both(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        out = rg.attend(query, keys, values, score=score, mask=mask, weights=True)
        return torch.cat((out.context, out.weights), -1)

    return both


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("score", [rg.dot, rg.scaled_dot, rg.Cosine(2.0)])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients(size: str, score, threads: int):
    torch.set_num_threads(threads)
    given = arguments(size)
    assert any(choice.road == "dot.look_cpu" for choice in rg.road(look(score=score), *given))
    check_road(lambda dtype: look(score=score), *given)


@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str):
    allowed = examples.MASKS[mask]()
    allowed = None if allowed is None else allowed.expand(2, 3, 4).unsqueeze(-2)
    check_road(lambda dtype: look(allowed), *(torch.randn(2, 3, *shape) for shape in ((1, 5), (4, 5), (4, 2))))


def test_what_may_not_be_looked_at_is_not_read():
    query, keys, values = arguments("batch")
    mask = torch.arange(11) < torch.tensor([0, 1, 4, 10, 11]).view(-1, 1, 1)
    hidden = ~mask.mT
    clean = answers(look(mask), query, keys, values)
    spoilt = answers(look(mask), query, keys.masked_fill(hidden, torch.nan), values.masked_fill(hidden, torch.nan))
    for one, other in zip(clean, spoilt, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_seen_as_by_the_plain_road(bad: float):
    query, keys, values = (each.abs() for each in arguments("batch"))
    keys[1, 2, 3] = bad
    assert_close(look()(query, keys, values), plain_answers(look(), query, keys, values)[0], equal_nan=True)


def test_the_gradient_of_the_gradient():
    given = [each.requires_grad_() for each in arguments("batch")]
    slopes = torch.autograd.grad(look()(*given).square().sum(), given, create_graph=True)
    with rg.plain_road():
        plain = torch.autograd.grad(look()(*given).square().sum(), given, create_graph=True)
    found, wanted = (torch.autograd.grad(sum(each.square().sum() for each in s), given) for s in (slopes, plain))
    assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_who_takes_the_plain_road():
    query, keys, values = arguments("batch")
    parts = rg.dot, rg.softmax, weighed
    assert taken(parts, lambda: look()(query, keys, values))
    assert not taken(parts, lambda: look()(query.expand(-1, 2, -1), keys, values))
    assert not taken(parts, lambda: look()(*(each.double() for each in (query, keys, values))))
