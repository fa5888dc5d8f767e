"""The context and the weights of one step of a decoder, against the same in plain PyTorch.

A decoder that draws where it looked, or sums it up for coverage, wants both at every step: `attend(..., weights=True)`.
The peer is written as tutorials write it: the scores by `torch.bmm`, `masked_fill`, `softmax`, and `torch.bmm` again.
`regard bench decoder` times one query of each of 64 sentences of 30 to 60 words, keys and values of one memory, forward
alone and with the gradients of query, keys and values.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from harness import Row, compare, main
from torch import Tensor
from torch.testing import assert_close

import regard as rg

BATCH, PLACES, SIZES = 64, 60, (64, 512)
SCORES: dict[str, Callable[[int], Callable[..., Tensor]]] = {
    "dot": lambda size: rg.dot,
    "general": lambda size: rg.Bilinear(size, size),
    "scaled_dot": lambda size: rg.scaled_dot,
}
LIMIT = "the two products with keys and values by torch.bmm, once forward, thrice with the backward"

Call = Callable[..., tuple[Tensor, Tensor]]


def measure(rounds: int) -> Iterable[Row]:
    """One row for each score, size and direction."""
    for size in SIZES:
        for name, make in SCORES.items():
            for backward in (False, True):
                yield row(name, make(size), size, backward, rounds)


def row(name: str, score: Callable[..., Tensor], size: int, backward: bool, rounds: int) -> Row:
    """One row, after a check that both compute the same."""
    torch.manual_seed(0)
    given = [torch.randn(BATCH, count, size).div(size**0.25).requires_grad_(backward) for count in (1, PLACES, PLACES)]
    mask = rg.padding(torch.randint(PLACES // 2, PLACES + 1, (BATCH,)), PLACES)
    scale = size**-0.5 if score is rg.scaled_dot else 1.0
    calls = partial(ours, rg.Attention(score), mask), partial(plain, scale, mask)
    mine, theirs = (partial(step, call, given, backward) for call in calls)
    assert_close(mine(), theirs(), rtol=1e-4, atol=1e-4)
    case = f"{name}, {BATCH}x1x{PLACES}x{size}, {'forward and backward' if backward else 'forward'}"
    bound = partial(products, given, 3 if backward else 1)
    return compare(case, "plain PyTorch", mine, theirs, bound, LIMIT, BATCH, rounds)


def ours(attention: rg.Attention, mask: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to a memory whose keys are projected already."""
    out = attention(query, rg.Memory(keys, values, mask), weights=True)
    return out.context, out.weights


def plain(scale: float, mask: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The two steps in PyTorch."""
    scores = torch.bmm(query if scale == 1 else query * scale, keys.transpose(1, 2))
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return torch.bmm(weights, values), weights


def step(call: Call, given: list[Tensor], backward: bool) -> tuple[Tensor, ...]:
    """One call, without gradients, or with those of all that it was given."""
    if not backward:
        with torch.no_grad():
            return call(*given)
    context, weights = call(*given)
    return context, weights, *torch.autograd.grad((context, weights), given, (context.detach(), weights.detach()))


@torch.no_grad()
def products(given: list[Tensor], times: int) -> None:
    """The products alone."""
    query, keys, values = given
    for _ in range(times):
        torch.bmm(torch.bmm(query, keys.transpose(1, 2)), values)


if __name__ == "__main__":
    main("decoder", measure)
