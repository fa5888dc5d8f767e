"""Law 5's measure: a fast road against the plain one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import regard as rg
from regard.kernels.registry import Road, known_roads, register_road


def answers(function: Callable[..., Tensor], *given: Tensor) -> list[Tensor]:
    """What the function gives, and the gradients in what it is given."""
    leaves = [each.detach().requires_grad_() for each in given]
    out = function(*leaves)
    grads = torch.autograd.grad(out, leaves, torch.linspace(-1, 1, out.numel()).view_as(out).to(out))
    return [out, *grads]


def plain_answers(function: Callable[..., Tensor], *given: Tensor) -> list[Tensor]:
    """The same by the plain road."""
    with rg.plain_road():
        return answers(function, *given)


def check_road(make: Callable[[torch.dtype], Callable[..., Tensor]], *given: Tensor) -> None:
    """The law, for a function that is made for a type: no further from float64 than twice the plain road in the same
    precision, and a few roundings."""
    dtype = given[0].dtype
    exact = plain_answers(make(torch.float64), *(each.double() for each in given))
    plain, fast = plain_answers(make(dtype), *given), answers(make(dtype), *given)
    for truth, slow, quick in zip(exact, plain, fast, strict=True):
        allowed = 2 * (slow - truth).abs().max() + 16 * torch.finfo(dtype).eps * truth.abs().max()
        assert quick.dtype == slow.dtype
        assert (quick - truth).abs().max() <= allowed


def taken(parts: tuple, call: Callable[[], object]) -> bool:
    """Whether a call takes the road of these parts."""
    names = ", ".join(part.__name__ for part in parts)
    return any(choice.road is not None and choice.parts == names for choice in rg.road(call))


@contextmanager
def replaced(parts: tuple, run: Callable[..., Any], device: str = "cpu") -> Iterator[None]:
    """Another `run` for the road of these parts: a mutant, with which a law must fail."""
    right = known_roads()[*parts, device]
    register_road(parts, device, right._replace(run=run))
    try:
        yield
    finally:
        register_road(parts, device, right)


@contextmanager
def alone(parts: tuple, device: str, road: Road) -> Iterator[None]:
    """This road, and no other."""
    known = known_roads()
    before = dict(known)
    known.clear()
    register_road(parts, device, road)
    try:
        yield
    finally:
        known.clear()
        known.update(before)


class Contexts(nn.Module):
    """query, keys and values to contexts; with its matrices as arguments, a function of them too."""

    def __init__(self, score: nn.Module, over=rg.softmax, mask: Tensor | None = None):
        super().__init__()
        self.attention = rg.Attention(score, over)
        self.mask = mask

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.attention(query, self.attention.prepare(keys, values, self.mask)).context

    def of_all(self, query: Tensor, keys: Tensor, values: Tensor, *matrices: Tensor) -> Tensor:
        names = [name for name, _ in self.named_parameters()]
        return torch.func.functional_call(self, dict(zip(names, matrices, strict=True)), (query, keys, values))


def check_contexts(model: Contexts, *given: Tensor) -> None:
    """The law for a module and all that its contexts depend on."""
    matrices = [each.detach().to(given[0].dtype) for each in model.parameters()]
    check_road(lambda dtype: model.to(dtype).of_all, *given, *matrices)
