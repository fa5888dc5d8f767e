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
    projections = (each for part in _projections(score, over) for each in (part.weight, part.bias))
    given = rows(query), rows(keys), rows(before.unsqueeze(-2))
    found = _looks(*given, *projections, keys.new_empty(int(over.circular)))
    context, weights = found if len(batch) == 1 else (each.view(*batch, 1, each.shape[-1]) for each in found)
    return context, None, None, weights


def rows(tensor: Tensor) -> Tensor:
    """The tensor with one batch dimension."""
    if tensor.dim() != 3:
        tensor = tensor.reshape(math.prod(tensor.shape[:-2]), *tensor.shape[-2:])
    return tensor.contiguous()


def _projections(score: Content, over: Addressed) -> tuple[nn.Module, nn.Module, nn.Module]:
    return score.key, score.strength, over.gates


def _plain(
    query: Tensor, memory: Tensor, before: Tensor, key: Tensor, key_bias: Tensor, strength: Tensor,
    strength_bias: Tensor, gates: Tensor, gates_bias: Tensor, circular: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    scores = contents(F.linear(query, key, key_bias), F.linear(query, strength, strength_bias), memory)
    over = Addressed(nn.Identity(), F.linear(query, gates, gates_bias), before.squeeze(-2), circular.numel() > 0)
    weights = over(scores).mean
    return weights @ memory, weights


def _forward(
    query: Tensor, memory: Tensor, before: Tensor, key: Tensor, key_bias: Tensor, strength: Tensor,
    strength_bias: Tensor, gates: Tensor, gates_bias: Tensor, circular: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from regard.kernels.addressing import cpu_loops

    bias = torch.cat((key_bias, strength_bias, gates_bias))
    asked = F.linear(query, torch.cat((key, strength, gates)), bias)  # (N, 1, V + W + 3)
    found = _new(memory)
    arrays = [each.numpy() for each in (asked, memory, before, circular, *found)]
    on_cpu.run(cpu_loops.looks, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    return *found, asked


def _new(memory: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, places, width = memory.shape
    shapes = (count, 1, width), (count, 1, places), (count, 4, places), (count,)
    context, weights, kept, rests = map(memory.new_empty, shapes)
    return context, weights, kept, rests


def _shape(
    query: Tensor, memory: Tensor, before: Tensor, key: Tensor, key_bias: Tensor, strength: Tensor,
    strength_bias: Tensor, gates: Tensor, gates_bias: Tensor, circular: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return *_new(memory), query.new_empty(len(query), 1, len(key_bias) + 1 + len(gates_bias))


def _backward(
    of_context: Tensor, of_weights: Tensor, query: Tensor, memory: Tensor, before: Tensor, key: Tensor,
    key_bias: Tensor, strength: Tensor, strength_bias: Tensor, gates: Tensor, gates_bias: Tensor, circular: Tensor,
    context: Tensor, weights: Tensor, kept: Tensor, rests: Tensor, asked: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from regard.kernels.addressing import cpu_loops

    found = of_asked, of_memory, of_before = [torch.empty_like(each) for each in (asked, memory, before)]
    given = of_context, of_weights, asked, memory, before, circular, weights, kept, rests
    arrays = [each.numpy() for each in (*given, *found)]
    on_cpu.run(cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    of_query, parts = of_asked @ torch.cat((key, strength, gates)), (len(key), 1, len(gates))
    of_asked = of_asked.squeeze(1)
    of_matrices, of_biases = (of_asked.mT @ query.squeeze(1)).split(parts), of_asked.sum(0).split(parts)
    of_key, of_strength, of_gates = zip(map(Tensor.clone, of_matrices), map(Tensor.clone, of_biases), strict=True)
    return of_query, of_memory, of_before, *of_key, *of_strength, *of_gates


def _shapes(of_context: Tensor, of_weights: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(torch.empty_like, given[:9]))


_looks = differentiable("addressing", _forward, _backward, (_shape, _shapes), _plain, outputs=2)
for read in (mean, weighed):
    register_road((Content, Addressed, read), "cpu", Road(run, refuses))
