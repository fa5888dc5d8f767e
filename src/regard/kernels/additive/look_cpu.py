"""(Additive, softmax, mean) of one query on the CPU: a decoder's look, from its projected query to the context.

One kernel does what is otherwise a score, a mask, a softmax and a sum, each of which takes longer to call than to do.
Places outside of the mask are not compared. Time O(K (H + V)); memory O(K) beside the arguments. In float32.
"""

import math
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.additive.cpu import is_matrix, projected
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.over.mappings import softmax
from regard.reads import Read, mean
from regard.scores import Additive

SMALLEST = 1 << 11
"""Hyperbolic tangents below which the plain road is taken, which compiles nothing."""


def refuses(
    score: Additive, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """More than one query for a row of keys, values that are no tensor, other types than float32, an energy that is
    more than a matrix, or too little to do."""
    if query.shape[-2] != 1 or query.shape[:-2] != keys.shape[:-2]:
        return "it takes one query for each row of keys"
    if not isinstance(values, Tensor):
        return "the values are no tensor"
    if not query.dtype == keys.dtype == values.dtype == torch.float32 or torch.is_autocast_enabled("cpu"):
        return "it takes float32, without autocast"
    if not is_matrix(score.energy):
        return "the energy is more than a matrix"
    return None if keys.numel() >= SMALLEST else f"below {SMALLEST} hyperbolic tangents the plain road is as fast"


def run(
    score: Additive, over: Any, read: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Read:
    """The context (*B, 1, V)."""
    batch, asked = query.shape[:-2], projected(score, query)
    rows = math.prod(batch)
    given = (asked.reshape(rows, asked.shape[-1]), keys.reshape(rows, *keys.shape[-2:]), score.energy.weight[0])
    values = values.reshape(rows, *values.shape[-2:])
    mask = None if mask is None else mask.reshape(rows, mask.shape[-1]).contiguous()
    context = _contexts(*(each.contiguous() for each in (*given, values)), mask)
    return context.view(*batch, 1, values.shape[-1]), None, None


def _plain(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    scores = (query.unsqueeze(-2) + keys).tanh() @ energy  # (N, K)
    weights = softmax(scores, mask).mean
    return (weights.unsqueeze(-2) @ values).squeeze(-2)


def _forward(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    from regard.kernels.additive import look_cpu_loops

    out, weights = _shape(query, keys, energy, values, mask)
    mask = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
    arrays = [each.numpy() for each in (query, keys, energy, values, mask, out, weights)]
    on_cpu.run(look_cpu_loops.contexts, [(*block, *arrays) for block in on_cpu.blocks(len(query))])
    return out, weights


def _shape(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    return values.new_empty(len(values), values.shape[-1]), keys.new_empty(keys.shape[:2])


def _backward(
    grad: Tensor, query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None, out: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from regard.kernels.additive import look_cpu_loops

    blocks = on_cpu.blocks(len(query))
    found = [torch.empty_like(each) for each in (query, keys, values)]
    of_query, of_keys, of_values = (each.numpy() for each in found)
    of_energy = energy.new_zeros(len(blocks), len(energy), dtype=torch.float64)
    arrays = [each.numpy() for each in (grad, query, keys, energy, values, weights)]
    tasks = [
        (*block, *arrays, of_query, of_keys, sums, of_values)
        for block, sums in zip(blocks, of_energy.numpy(), strict=True)
    ]
    on_cpu.run(look_cpu_loops.gradients, tasks)
    return found[0], found[1], of_energy.sum(0).float(), found[2]


def _shapes(
    grad: Tensor, query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None, out: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(query), torch.empty_like(keys), torch.empty_like(energy), torch.empty_like(values)


_contexts = differentiable("additive_look", _forward, _backward, (_shape, _shapes), _plain)
register_road((Additive, softmax, mean), "cpu", Road(run, refuses))
