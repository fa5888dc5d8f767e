"""The products of windows on the CPU: `window_scores` and `window_means` without gathering the rows of each window.

Time O(Q w D), memory O(Q w) beside the arguments. In float32, of which other types are made.
"""

import math

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, is_transformed, register_road
from regard.positions.algorithms.windows import plain_means, plain_scores, window_means, window_scores

SMALLEST = 1 << 14
"""Products below which the plain road is taken, which compiles nothing."""


def suits(function: object, one: Tensor, rows: Tensor, first: Tensor, width: int) -> bool:
    """Enough to do, in one type of float32 or less, for rows of the same batch."""
    return (
        one.dtype == rows.dtype != torch.float64
        and one.shape[:-2] == rows.shape[:-2]
        and first.numel() * width * rows.shape[-1] >= SMALLEST
        and not is_transformed()
    )


def run_scores(function: object, query: Tensor, keys: Tensor, first: Tensor, width: int) -> Tensor:
    """The products (*B, Q, w)."""
    return _run(_scores, query, keys, first, torch.arange(width)).to(query.dtype)


def run_means(function: object, weights: Tensor, values: Tensor, first: Tensor, width: int) -> Tensor:
    """What is read (*B, Q, V)."""
    return _run(_means, weights, values, first).to(values.dtype)


def _run(product, one: Tensor, rows: Tensor, first: Tensor, *more: Tensor) -> Tensor:
    batch = one.shape[:-2]
    given = (each.reshape(math.prod(batch), *each.shape[-2:]).float().contiguous() for each in (one, rows))
    first = first.expand(one.shape[:-1]).reshape(math.prod(batch), one.shape[-2]).contiguous()
    return product(*given, first, *more).unflatten(0, batch) if batch else product(*given, first, *more)[0]


def _forward_scores(query: Tensor, keys: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    from regard.kernels.window import cpu_loops

    return _windows(cpu_loops.scores, query, keys, first, _shape_scores(query, keys, first, steps))


def _forward_means(weights: Tensor, values: Tensor, first: Tensor) -> Tensor:
    from regard.kernels.window import cpu_loops

    return _windows(cpu_loops.means, weights, values, first, _shape_means(weights, values, first))


def _windows(kernel, one: Tensor, rows: Tensor, first: Tensor, out: Tensor) -> Tensor:
    arrays = [each.numpy() for each in (one, rows, first, out)]
    on_cpu.run(kernel, [(*block, *arrays) for block in on_cpu.blocks(first.numel())])
    return out


def _spread(weights: Tensor, rows: Tensor, first: Tensor, like: Tensor) -> Tensor:
    from regard.kernels.window import cpu_loops

    out = torch.zeros_like(like)
    arrays = [each.numpy() for each in (weights, rows, first, out)]
    on_cpu.run(cpu_loops.spread, [(*block, *arrays) for block in on_cpu.blocks(len(out))])
    return out


def _backward_scores(
    grad: Tensor, query: Tensor, keys: Tensor, first: Tensor, steps: Tensor, out: Tensor
) -> tuple[Tensor, Tensor]:
    return _forward_means(grad, keys, first), _spread(grad, query, first, keys)


def _backward_means(grad: Tensor, weights: Tensor, values: Tensor, first: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    return _forward_scores(grad, values, first, weights[0, 0]), _spread(weights, grad, first, values)


def _shape_scores(query: Tensor, keys: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    return query.new_empty(*first.shape, len(steps))


def _shape_means(weights: Tensor, values: Tensor, first: Tensor) -> Tensor:
    return values.new_empty(*first.shape, values.shape[-1])


def _shapes(grad: Tensor, one: Tensor, rows: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(one), torch.empty_like(rows)


def _plain_scores(query: Tensor, keys: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    return plain_scores(query, keys, first, len(steps))


def _plain_means(weights: Tensor, values: Tensor, first: Tensor) -> Tensor:
    return plain_means(weights, values, first, weights.shape[-1])


_scores = differentiable("window_scores", _forward_scores, _backward_scores, (_shape_scores, _shapes), _plain_scores)
_means = differentiable("window_means", _forward_means, _backward_means, (_shape_means, _shapes), _plain_means)
register_road((window_scores,), "cpu", Road(suits, run_scores))
register_road((window_means,), "cpu", Road(suits, run_means))
