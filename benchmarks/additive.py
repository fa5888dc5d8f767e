"""Additive attention without the tensor of all queries, keys and hidden units, against all who form it.

Beside the plain road, torch.compile of it and Keras's AdditiveAttention (on torch; `pip install keras`, or its rows are
left out): a batch forward, and with the backward, and one step of decoding over up to 100,000 keys.
`regard bench additive` prints the times, the memory, and what the hyperbolic tangents alone take.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec

import harness
import numpy as np
import torch
from harness import Row, compare
from torch import Tensor

import regard as rg
from regard.kernels.additive import cpu_loops as additive_loops
from regard.kernels.on_cpu import compiled

SIZES = [(32, 32, 64, 512), (4, 256, 512, 256)]
STEPS = [(1, 1, 10**3, 256), (1, 1, 10**4, 256), (1, 1, 10**5, 256)]
"""Batch, queries, keys, hidden units."""
LIMIT = "as many hyperbolic tangents, and nothing else, of numbers in the first cache, on one thread"

Call = Callable[..., Tensor]


def measure(rounds: int) -> Iterator[Row]:
    """Rows for each size, number of threads and peer."""
    for size in (*SIZES, *STEPS):
        given = arguments(size)
        for backward in (False, True) if size in SIZES else (False,):
            for threads in (1, 2) if size in SIZES else (1,):
                for peer, call in peers(size).items():
                    yield row(size, backward, threads, peer, call, given, rounds)


def arguments(size: tuple[int, int, int, int]) -> list[Tensor]:
    """Projected query, projected keys, energy and values."""
    torch.manual_seed(0)
    batch, queries, keys, hidden = size
    shapes = [(batch, queries, hidden), (batch, keys, hidden), (hidden,), (batch, keys, 64)]
    return [torch.randn(*shape) / (hidden**0.5 if len(shape) == 1 else 1) for shape in shapes]


def row(size, backward: bool, threads: int, peer: str, call: Call, given: list[Tensor], rounds: int) -> Row:
    """One peer, after a check that it computes the same."""
    check(attend, call, given, backward)
    ours, theirs = (partial(step, function, given, backward, threads) for function in (attend, call))
    what = f"{'x'.join(map(str, size))}, {'forward and backward' if backward else 'forward'}"
    count = np.prod(size).item() * (2 if backward else 1)
    bound = partial(tangents().__call__, count, np.linspace(-2, 2, 2048, dtype=np.float32))
    case = f"{what}, {threads} thread{'s' * (threads > 1)}"
    return compare(case, peer, ours, theirs, bound, LIMIT, size[0] * size[1], rounds)


@cache
def attention(hidden: int) -> rg.Attention:
    """Attention that is given what is projected already, and its energy with it."""
    score = rg.Additive(1, 1, hidden)
    score.query = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    del score.energy.weight
    return rg.Attention(score)


def attend(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor) -> Tensor:
    """Ours."""
    ours = attention(len(energy))
    ours.score.energy.weight = energy.unsqueeze(0)
    return ours(query, rg.Memory(keys, values)).context


def plainly(*given: Tensor) -> Tensor:
    """The plain road of the same."""
    with rg.plain_road():
        return attend(*given)


def formed(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor) -> Tensor:
    """The mathematics of the plain road, for torch.compile."""
    return ((query.unsqueeze(-2) + keys.unsqueeze(-3)).tanh() @ energy).softmax(-1) @ values


@cache
def peers(size: tuple[int, ...]) -> dict[str, Call]:
    """Who computes the same."""
    found: dict[str, Call] = {"plain road": plainly, "torch.compile": torch.compile(formed, dynamic=False)}
    if find_spec("keras"):
        found["keras AdditiveAttention"] = keras_attention
    return found


def keras_attention(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor) -> Tensor:
    """Keras's layer, whose only weight is the energy."""
    import keras  # pyright: ignore[reportMissingImports]

    layer = keras.layers.AdditiveAttention()
    layer.build([query.shape, values.shape, keys.shape])
    layer.scale._value = energy  # pyright: ignore[reportOptionalMemberAccess]
    return layer([query, values, keys])


def step(call: Call, given: list[Tensor], backward: bool, threads: int) -> list[Tensor]:
    """One call, with the gradients of all that it was given if they are wanted."""
    torch.set_num_threads(threads)
    try:
        if not backward:
            with torch.no_grad():
                return [call(*given)]
        leaves = [each.detach().requires_grad_() for each in given]
        context = call(*leaves)
        return [context, *torch.autograd.grad(context, leaves, torch.ones_like(context))]
    finally:
        torch.set_num_threads(1)


def check(ours: Call, theirs: Call, given: list[Tensor], backward: bool) -> None:
    """Raises AssertionError unless both agree."""
    for one, other in zip(step(ours, given, backward, 1), step(theirs, given, backward, 1), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


@cache
def tangents() -> Callable[[int, np.ndarray], float]:
    """So many hyperbolic tangents of a few numbers again and again, summed."""
    tanh = additive_loops.tanh

    def total(count, x):
        found = np.float32(0)
        for _ in range(count // len(x)):
            for i in range(len(x)):
                found += tanh(x[i])
        return found

    return compiled(total)


if __name__ == "__main__":
    harness.main("additive", measure)
