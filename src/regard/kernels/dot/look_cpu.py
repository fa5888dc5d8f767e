"""(scaled_dot, dot, Bilinear or Cosine, softmax, mean and weights) of one query on the CPU: a decoder's look that is
also to be drawn or summed up.

One kernel forms the weights and the context; places outside of the mask are not compared. Time O(K (D + V)); memory
O(K) beside the arguments. In float32.
"""

import math
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.over.mappings import softmax
from regard.reads import weighed
from regard.scores import Bilinear, Cosine, dot, scaled_dot

SMALLEST = 1 << 11
"""Products below which the plain road is taken, which compiles nothing."""


def refuses(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """More than one query for a row of keys, values that are no tensor, other types than float32, or too little."""
    if query.shape[-2] != 1 or query.shape[:-2] != keys.shape[:-2]:
        return "it takes one query for each row of keys"
    if not isinstance(values, Tensor):
        return "the values are no tensor"
    if not query.dtype == keys.dtype == values.dtype == torch.float32 or torch.is_autocast_enabled("cpu"):
        return "it takes float32, without autocast"
    return None if keys.numel() >= SMALLEST else f"below {SMALLEST} products the plain road is as fast"


def run(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, None, None, Tensor]:
    """The context (*B, 1, V) and, last, the weights (*B, 1, K)."""
    query = query / math.sqrt(query.shape[-1]) if score is scaled_dot else query
    query = score.sharpened(query) if type(score) is Cosine else query
    batch, width, places = query.shape[:-2], values.shape[-1], keys.shape[-2]
    both = _looks(*_rows(query, keys, values, mask))
    both = both if len(batch) == 1 else both.view(*batch, 1, width + places)
    context, weights = both.split_with_sizes((width, places), -1)
    return context, None, None, weights


def _rows(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors with one batch dimension."""
    return [None if each is None else (each if each.dim() == 3 else _flat(each)).contiguous() for each in tensors]


def _flat(tensor: Tensor) -> Tensor:
    return tensor.reshape(math.prod(tensor.shape[:-2]), *tensor.shape[-2:])


def _plain(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    weights = softmax(dot(query, keys), mask).mean
    return torch.cat((weights @ values, weights), -1)


def _forward(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    from regard.kernels.dot import look_cpu_loops

    out = _shape(query, keys, values, mask)
    mask = keys.new_ones(keys.shape[0], 1, keys.shape[1], dtype=torch.bool) if mask is None else mask
    arrays = [each.numpy() for each in (query, keys, values, mask, out)]
    on_cpu.run(look_cpu_loops.looks, [(*block, *arrays) for block in on_cpu.blocks(query.shape[0])])
    return out


def _shape(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    return values.new_empty(values.shape[0], 1, values.shape[-1] + keys.shape[-2])


def _backward(
    grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from regard.kernels.dot import look_cpu_loops

    found = _shapes(grad, query, keys, values, mask, out)
    arrays = [each.numpy() for each in (grad, query, keys, values, out, *found)]
    on_cpu.run(look_cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(query.shape[0])])
    return found


def _shapes(
    grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(keys), torch.empty_like(values)


_looks = differentiable("dot_look", _forward, _backward, (_shape, _shapes), _plain)
for score in (scaled_dot, dot, Bilinear, Cosine):
    register_road((score, softmax, weighed), "cpu", Road(run, refuses))
