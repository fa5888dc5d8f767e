"""What `attend` adds to PyTorch's scaled_dot_product_attention, which is its fast road for (scaled_dot, softmax, mean).

`regard bench scaled_dot` prints both, forward alone and with the backward, in turn.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from harness import Row, compare, main
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import regard as rg

SIZES = [(1, 8, 128, 64), (4, 8, 128, 64), (1, 8, 512, 64)]
NARROW = [(64, 4, 30, 64), (4, 8, 128, 64)]
"""In bfloat16, where training takes a way of its own."""
LIMIT = "the two matrix products, forward, or the six, with the backward, by torch.matmul"


def measure(rounds: int) -> Iterable[Row]:
    """Two rows for each size, and one for each of those in bfloat16."""
    for size in SIZES:
        torch.manual_seed(0)
        query, keys, values = (torch.randn(size, requires_grad=True) for _ in range(3))
        ours, theirs = rg.attend(query, keys, values).context, scaled_dot_product_attention(query, keys, values)
        if not torch.equal(ours, theirs):
            raise AssertionError("the fast road is not PyTorch's")
        yield _row(size, "forward", _attend, scaled_dot_product_attention, _products, (query, keys, values), rounds)
        yield _trained_row(size, "forward and backward", (query, keys, values), rounds)
    for size in NARROW:
        torch.manual_seed(0)
        tensors = [torch.randn(size, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        yield _trained_row(size, "bfloat16, forward and backward", tensors, rounds)


def _trained_row(size, what: str, tensors: Sequence[Tensor], rounds: int) -> Row:
    ours, theirs = _trained(_attend), _trained(scaled_dot_product_attention)
    return _row(size, what, ours, theirs, lambda *given: [_products(*given) for _ in range(3)], tensors, rounds)


def _row(size, what, ours, theirs, bound, tensors, rounds: int) -> Row:
    calls = [partial(function, *tensors) for function in (ours, theirs, bound)]
    case = f"{'x'.join(map(str, size))}, {what}"
    return compare(case, "scaled_dot_product_attention", calls[0], calls[1], calls[2], LIMIT, size[0] * size[2], rounds)


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return rg.attend(query, keys, values).context


def _trained(function):
    return lambda *tensors: torch.autograd.grad(function(*tensors).sum(), tensors)


@torch.no_grad()
def _products(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (query @ keys.mT) @ values


if __name__ == "__main__":
    main("scaled_dot", measure)
