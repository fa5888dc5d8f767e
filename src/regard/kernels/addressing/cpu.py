"""(Content, addressing, mean) of one query on the CPU: a step of a neural Turing machine's head that reads what it
compares, from what the query says to what is read and where, of which the next step is told.

One kernel forms the cosines, the four maps, the weights and the context, one their gradients, each in two passes over
the memory; what the head asks is one matrix product. Time O(K (V + W)); memory O(K) beside the arguments. In float32.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.kernels import on_cpu
from regard.kernels.additive.cpu import is_matrix
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.over.addressing import Addressed, first_place
from regard.reads import mean, weighed
from regard.scores import Content, contents

SMALLEST = 1 << 9
"""Numbers in all memories below which the plain road is taken, which compiles nothing."""


def refuses(
    score: Content, over: Addressed, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """More than one query for a memory, values that are not the keys, a mask, other types than float32, projections
    that are more than a matrix, or too little to do."""
    if query.shape[-2] != 1 or query.shape[:-2] != keys.shape[:-2]:
        return "it takes one query for each memory"
    if values is not keys or mask is not None:
        return "it takes a memory that is both keys and values, without a mask"
    if not query.dtype == keys.dtype == torch.float32 or torch.is_autocast_enabled("cpu"):
        return "it takes float32, without autocast"
    if not all(is_matrix(part) and part.bias is not None for part in _projections(score, over)):
        return "a projection of the query is not a matrix and a bias"
    return None if keys.numel() >= SMALLEST else f"below {SMALLEST} numbers the plain road is taken"


def run(
    score: Content, over: Addressed, read: Any, query: Tensor, keys: Tensor, values: Tensor, mask: None
) -> tuple[Tensor, None, None, Tensor]:
    """The context (*B, 1, V) and, last, the weights (*B, 1, K)."""
    batch, places = keys.shape[:-2], keys.shape[-2]
    before = first_place(keys[..., 0]) if over.before is None else over.before.expand(*batch, places)
    projections = _projections(score, over)
    weights, biases = ([getattr(part, name) for part in projections] for name in ("weight", "bias"))
    asked = F.linear(query, torch.cat(weights), torch.cat(biases))  # (*B, 1, V + W + 3)
    found = _looks(rows(asked), rows(keys), rows(before.unsqueeze(-2)), keys.new_empty(int(over.circular)))
    context, weights = found if len(batch) == 1 else (each.view(*batch, 1, each.shape[-1]) for each in found)
    return context, None, None, weights


def rows(tensor: Tensor) -> Tensor:
    """The tensor with one batch dimension."""
    if tensor.dim() != 3:
        tensor = tensor.reshape(math.prod(tensor.shape[:-2]), *tensor.shape[-2:])
    return tensor.contiguous()


def _projections(score: Content, over: Addressed) -> tuple[nn.Module, nn.Module, nn.Module]:
    return score.key, score.strength, over.gates


def _plain(asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor) -> tuple[Tensor, Tensor]:
    width = memory.shape[-1]
    key, strength, gates = asked.split((width, 1, asked.shape[-1] - width - 1), -1)
    over = Addressed(nn.Identity(), gates, before.squeeze(-2), circular.numel() > 0)
    weights = over(contents(key, strength, memory)).mean
    return weights @ memory, weights


def _forward(asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from regard.kernels.addressing import cpu_loops

    found = _new(asked, memory)
    arrays = [each.numpy() for each in (asked, memory, before, circular, *found)]
    on_cpu.run(cpu_loops.looks, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    return found


def _new(asked: Tensor, memory: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, places, width = memory.shape
    shapes = (count, 1, width), (count, 1, places), (count, 4, places), (count,)
    context, weights, kept, rests = map(memory.new_empty, shapes)
    return context, weights, kept, rests


def _backward(
    of_context: Tensor, of_weights: Tensor, asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor,
    context: Tensor, weights: Tensor, kept: Tensor, rests: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from regard.kernels.addressing import cpu_loops

    found = _shapes(of_context, of_weights, asked, memory, before)
    given = of_context, of_weights, asked, memory, before, circular, weights, kept, rests
    arrays = [each.numpy() for each in (*given, *found)]
    on_cpu.run(cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    return found


def _shapes(
    of_context: Tensor, of_weights: Tensor, asked: Tensor, memory: Tensor, before: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(asked), torch.empty_like(memory), torch.empty_like(before)


_looks = differentiable("addressing", _forward, _backward, (_new, _shapes), _plain, outputs=2)
for read in (mean, weighed):
    register_road((Content, Addressed, read), "cpu", Road(run, refuses))
