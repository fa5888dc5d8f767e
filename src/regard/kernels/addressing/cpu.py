"""(Content, addressing, mean) of one query on the CPU: a step of a neural Turing machine's head that reads what it
compares, from what the query says to what is read and where, of which the next step is told.

One kernel forms the cosines, the four maps, the weights and the context, one their gradients, each in two passes over
the memory; what the head asks is one matrix product. Time O(K (V + W)); memory O(K) beside the arguments. In float32.
"""

import math
from typing import Any

import torch
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
    if not all(map(is_matrix, (score.key, score.strength, over.gates))):
        return "a projection of the query is more than a matrix"
    return None if keys.numel() >= SMALLEST else f"below {SMALLEST} numbers the plain road is taken"


def run(
    score: Content, over: Addressed, read: Any, query: Tensor, keys: Tensor, values: Tensor, mask: None
) -> tuple[Tensor, None, None, Tensor]:
    """The context (*B, 1, V) and, last, the weights (*B, 1, K)."""
    *batch, places, width = keys.shape
    rows, parts = math.prod(batch), (score.key, score.strength, over.gates)
    matrix, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    asked = nn.functional.linear(query.reshape(rows, query.shape[-1]), matrix, bias)  # (N, V + W + 3)
    before = first_place(keys[..., 0]) if over.before is None else over.before.expand(*batch, -1)
    memory, before = keys.reshape(rows, places, width).contiguous(), before.reshape(rows, places).contiguous()
    both = _looks(asked, memory, before, keys.new_empty(int(over.circular))).view(*batch, 1, width + places)
    context, weights = both.split_with_sizes((width, places), -1)
    return context, None, None, weights


def _plain(asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor) -> Tensor:
    width = memory.shape[-1]
    key, strength, gates = asked.unsqueeze(-2).split((width, 1, asked.shape[-1] - width - 1), -1)
    scores = contents(key, strength, memory)
    weights = Addressed(nn.Identity(), gates, before, circular.numel() > 0)(scores).mean
    return torch.cat((weights @ memory, weights), -1).squeeze(-2)


def _forward(asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from regard.kernels.addressing import cpu_loops

    found = _shape(asked, memory, before, circular)
    arrays = [each.numpy() for each in (asked, memory, before, circular, *found)]
    on_cpu.run(cpu_loops.looks, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    return found


def _shape(asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, places, width = memory.shape
    return memory.new_empty(rows, width + places), memory.new_empty(rows, 4, places), memory.new_empty(rows)


def _backward(
    grad: Tensor, asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor, out: Tensor, kept: Tensor,
    rests: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from regard.kernels.addressing import cpu_loops

    found = _shapes(grad, asked, memory, before, circular, out, kept, rests)
    arrays = [each.numpy() for each in (grad, asked, memory, before, circular, out, kept, rests, *found)]
    on_cpu.run(cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    return found


def _shapes(
    grad: Tensor, asked: Tensor, memory: Tensor, before: Tensor, circular: Tensor, out: Tensor, kept: Tensor,
    rests: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(asked), torch.empty_like(memory), torch.empty_like(before)


_looks = differentiable("addressing", _forward, _backward, (_shape, _shapes), _plain)
for read in (mean, weighed):
    register_road((Content, Addressed, read), "cpu", Road(run, refuses))
