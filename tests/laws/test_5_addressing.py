"""Law 5 for the kernels of a memory, a head's step and a dense write: they equal the plain road."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from roads import answers, check_road, plain_answers, taken
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.addressing import cpu as addressing
from regard.kernels.written import cpu as written
from regard.over.addressing import Addressed
from regard.protocol import State

PARTS = (rg.Content, Addressed, rg.mean)
SIZES = {
    "no batch": ((), 7, 3),
    "batch": ((5,), 37, 9),
    "heads": ((2, 3), 11, 20),
    "one cell": ((3,), 1, 5),
    "cells of one number": ((2,), 6, 1),
    "many cells": ((2,), 300, 16),
}
WIDTHS = (1, 2, 3, 4, 5)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the roads for small sizes too."""
    monkeypatch.setattr(addressing, "SMALLEST", 0)
    monkeypatch.setattr(written, "SMALLEST", 0)


class Head(nn.Module):
    """query, memory and the weights before to the context and the weights, in one row."""

    def __init__(self, size: int, width: int = 3, circular: bool = True, query_dim: int = 6):
        super().__init__()
        self.attention = rg.Attention(rg.Content(query_dim, size), rg.addressing(query_dim, width, circular))

    def forward(self, query: Tensor, memory: Tensor, before: Tensor | None = None) -> Tensor:
        state = None if before is None else State(None, before)
        out = self.attention(query, self.attention.prepare(memory, memory), state)
        return torch.cat((out.context, out.weights), -1)

    def of_all(self, *given: Tensor) -> Tensor:
        """The same as a function of its matrices, too."""
        names = [name for name, _ in self.named_parameters()]
        matrices = dict(zip(names, given[-len(names) :], strict=True))
        return torch.func.functional_call(self, matrices, given[: -len(names)])


def arguments(size: str) -> list[Tensor]:
    batch, places, width = SIZES[size]
    return [
        torch.randn(*batch, 1, 6),
        torch.randn(*batch, places, width),
        torch.randn(*batch, places).mul(3).softmax(-1),
    ]


def check_head(model: Head, *given: Tensor) -> None:
    """The law for a head and all that it depends on."""
    matrices = [each.detach().to(given[0].dtype) for each in model.parameters()]
    check_road(lambda dtype: model.to(dtype).of_all, *given, *matrices)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients(size: str, threads: int):
    torch.set_num_threads(threads)
    model, given = Head(SIZES[size][-1]), arguments(size)
    assert taken(PARTS, lambda: model(*given))
    check_head(model, *given)
    check_head(model, *given[:2])  # the first step


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", ["no batch", "one cell"])
def test_moves_of_any_width(size: str, width: int, circular: bool):
    model = Head(SIZES[size][-1], width, circular)
    check_head(model, *arguments(size))
    check_head(model, *arguments(size)[:2])


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("power", [0.0, 20.0, 500.0])
def test_exact_zeros_and_large_powers(power: float, circular: bool):
    """The gate is closed, so that only what is beside the weights before is looked at; by a large power one place."""
    model, (query, memory, before) = Head(9, 3, circular), arguments("batch")
    with torch.no_grad():
        model.attention.over.gates.bias[0] = -200
        model.attention.over.gates.bias[-1] = power
    before = before.where(torch.arange(37) % 5 == 0, 0)
    given = query, memory, before / before.sum(-1, keepdim=True), *(each.detach() for each in model.parameters())
    for fast, plain in zip(answers(model.of_all, *given), plain_answers(model.of_all, *given), strict=True):
        assert_close(fast, plain, rtol=1e-3, atol=1e-5)
    assert ((answers(model.of_all, *given)[0][..., 9:] == 0).sum(-1) > 10).all()


def test_cells_and_keys_of_zeros():
    model, (query, memory, before) = Head(9), arguments("batch")
    memory[1, 3:7] = 0
    check_head(model, query, memory, before)
    nn.init.zeros_(model.attention.score.key.weight)
    nn.init.zeros_(model.attention.score.key.bias)
    check_head(model, query, memory, before)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_cells_of_any_size(scale: float):
    model, (query, memory, before) = Head(9), arguments("batch")
    memory[:, ::2] *= scale
    with rg.plain_road():
        wanted = model(query, memory, before)
    assert_close(model(query, memory, before), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", range(3))
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_is_seen_as_by_the_plain_road(bad: float, where: int):
    model, given = Head(9), arguments("batch")
    given[where].view(5, -1)[2, 3] = bad
    with rg.plain_road():
        wanted = model(*given)
    assert wanted[2].isnan().any() and not wanted[1].isnan().any()
    assert_close(model(*given), wanted, equal_nan=True, rtol=1e-4, atol=1e-6)


def test_not_contiguous():
    model = Head(9)
    query, memory, before = arguments("batch")
    check_head(model, query.repeat(1, 1, 2)[..., ::2], memory.mT.contiguous().mT, before.mT.contiguous().mT)


def steps(model: Head, query: Tensor, memory: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """A head that writes and reads, three times over."""
    state, seen = None, []
    for step in range(3):
        out = model.attention(query + step, model.attention.prepare(memory, memory), state)
        memory, state = rg.write(memory, out.positions, erase, add), out.state
        seen.append(out.context)
    return torch.cat((*seen, memory), -2)


def test_steps_and_their_state():
    query, memory, _ = arguments("heads")
    erase, add = torch.rand(2, 3, 1, 20), torch.randn(2, 3, 1, 20)
    model = Head(20)
    check_road(lambda dtype: lambda *given: steps(model.to(dtype), *given), query, memory, erase, add)


def test_the_gradient_of_the_gradient():
    model, given = Head(9), arguments("batch")

    def slopes(*given: Tensor) -> Tensor:
        first = torch.autograd.grad(model(*given).square().sum(), given, create_graph=True)
        return torch.cat([each.flatten() for each in first])

    for fast, plain in zip(answers(slopes, *given), plain_answers(slopes, *given), strict=True):
        assert_close(fast, plain, rtol=1e-3, atol=1e-4)


class TestWhichRoad:
    def is_taken(self, model: Head, *given: Tensor) -> bool:
        return taken(PARTS, lambda: model(*given))

    def test_not_for_many_queries_or_draws(self):
        query, memory, _ = arguments("batch")
        assert self.is_taken(Head(9), query, memory)
        assert not self.is_taken(Head(9), query.expand(-1, 2, -1), memory)
        assert not self.is_taken(Head(9), query.expand(2, -1, -1, -1), memory)

    def test_not_for_other_values_or_masks(self):
        (query, memory, _), attention = arguments("batch"), Head(9).attention
        for made in (
            attention.prepare(memory, memory.clone()),
            attention.prepare(memory, memory, torch.ones(5, 1, 37, dtype=torch.bool)),
        ):
            assert not taken(PARTS, lambda made=made: attention(query, made))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_not_for_other_types(self, dtype: torch.dtype):
        assert not self.is_taken(Head(9).to(dtype), *(each.to(dtype) for each in arguments("batch")))

    def test_not_with_hooks(self):
        hooked, inner = Head(9), Head(9)
        hooked.attention.score.register_forward_hook(lambda *_: None)
        inner.attention.over.gates.register_forward_hook(lambda *_: None)
        assert not any(self.is_taken(each, *arguments("batch")) for each in (hooked, inner))

    def test_not_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(addressing, "SMALLEST", 10**9)
        assert not self.is_taken(Head(9), *arguments("batch"))


@pytest.mark.parametrize("wrong", ["weights", *range(3), "circular"])
def test_a_wrong_kernel_is_noticed(wrong: Any, monkeypatch: pytest.MonkeyPatch):
    """A value that is wrong, each gradient that is, and moves beyond the end."""
    right, model, given = addressing._looks, Head(9), arguments("batch")

    def looks(*given: Tensor) -> tuple[Tensor, Tensor]:
        inputs = list(given)
        if wrong == "circular":
            inputs[-1] = inputs[-1][:0]
        elif wrong != "weights":
            inputs[wrong] = inputs[wrong].detach() + 0.99 * (inputs[wrong] - inputs[wrong].detach())
        context, weights = right(*inputs)
        return context, weights * (1.001 if wrong == "weights" else 1)

    check_head(model, *given)
    monkeypatch.setattr(addressing, "_looks", looks)
    with pytest.raises(AssertionError):
        check_head(model, *given)


class TestWrite:
    def given(self, size: str) -> list[Tensor]:
        batch, places, width = SIZES[size]
        shapes = (places, width), (1, places), (1, width), (1, width)
        memory, weights, erase, add = (torch.randn(*batch, *shape) for shape in shapes)
        return [memory, weights.softmax(-1), erase.sigmoid(), add]

    def write(self, memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
        return rg.write(memory, rg.OneHot(weights=weights), erase, add)

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("size", SIZES)
    def test_values_and_gradients(self, size: str, threads: int):
        torch.set_num_threads(threads)
        given = self.given(size)
        assert taken((rg.write,), lambda: self.write(*given))
        check_road(lambda dtype: self.write, *given)

    def test_not_contiguous_and_expanded(self):
        memory, weights, erase, add = self.given("batch")
        check_road(lambda dtype: self.write, memory.mT.contiguous().mT, weights, erase[:1].expand(5, 1, 9), add)

    def test_what_is_no_number_stays_in_its_cell(self):
        memory, *others = self.given("batch")
        memory[2, 3, 4] = torch.nan
        assert self.write(memory, *others).isnan().nonzero().tolist() == [[2, 3, 4]]

    def test_who_takes_the_plain_road(self):
        given = self.given("batch")
        assert not taken((rg.write,), lambda: self.write(*(each.double() for each in given)))
        assert not taken((rg.write,), lambda: self.write(given[0], *(each.repeat(1, 2, 1) for each in given[1:])))

    @pytest.mark.parametrize("wrong", range(5))
    def test_a_wrong_kernel_is_noticed(self, wrong: int, monkeypatch: pytest.MonkeyPatch):
        right, given = written._written, self.given("batch")
        monkeypatch.setattr(written, "_written", _mutant(right, wrong))
        with pytest.raises(AssertionError):
            check_road(lambda dtype: self.write, *given)


def _mutant(right: Callable[..., Tensor], wrong: int) -> Callable[..., Tensor]:
    """The function with one gradient a little off, or with its value."""

    def function(*given: Tensor) -> Tensor:
        inputs = list(given)
        if wrong < len(inputs):
            inputs[wrong] = inputs[wrong].detach() + 0.99 * (inputs[wrong] - inputs[wrong].detach())
        return right(*inputs) * (1 if wrong < len(inputs) else 1.001)

    return function
