"""The additive score on the CPU: v . tanh(W q + U k) without the tensor of all queries, keys and hidden units.

Time O(Q K H), at one hyperbolic tangent for each in the forward and one in the backward pass; memory O(Q K) beside the
arguments. In float32, of which other types are made.
"""

import math

import torch
from torch import Tensor, nn

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, is_hooked, register_road
from regard.scores import Additive

SMALLEST = 1 << 17
"""Hyperbolic tangents below which the plain road is as fast."""


def refuses(score: Additive, query: Tensor, prepared: Tensor) -> str | None:
    """Too little to do, float64, an energy that is more than a matrix, or another batch than that of the keys."""
    draws = query.dim() - prepared.dim()
    if draws < 0 or query.shape[draws:-2] != prepared.shape[:-2]:
        return "the query has another batch than the keys"
    if not is_matrix(score.energy):
        return "the energy is more than a matrix"
    if torch.float64 in (query.dtype, prepared.dtype):
        return "it computes in float32, and this is float64"
    enough = math.prod((*query.shape[:-1], *prepared.shape[-2:])) >= SMALLEST
    return None if enough else f"below {SMALLEST} hyperbolic tangents the plain road is as fast"


def is_matrix(energy: nn.Module) -> bool:
    """Whether it is nothing but a matrix, and perhaps a bias."""
    return type(energy) is nn.Linear and not is_hooked(energy)


def projected(score: Additive, query: Tensor) -> Tensor:
    """The projected query for a softmax, which does not see a bias of the energy: its gradient is zero."""
    asked, bias = score.query(query), score.energy.bias
    return asked if bias is None else asked + 0 * bias.to(asked.dtype)


def run(score: Additive, query: Tensor, prepared: Tensor) -> Tensor:
    """The scores (*S, *B, Q, K): draws in front become queries of their row."""
    asked = score.query(query)  # (*S, *B, Q, H)
    dtype = torch.promote_types(asked.dtype, prepared.dtype)
    rows, draws = math.prod(prepared.shape[:-2]), math.prod(query.shape[: query.dim() - prepared.dim()])
    asked = asked.reshape(draws, rows, *asked.shape[-2:]).transpose(0, 1).flatten(1, 2)  # (N, S Q, H)
    keys = prepared.reshape(rows, *prepared.shape[-2:])
    scores = _scores(*(each.float().contiguous() for each in (asked, keys, score.energy.weight[0])))  # (N, S Q, K)
    scores = scores.unflatten(1, (draws, query.shape[-2])).transpose(0, 1)
    scores = scores.reshape(*query.shape[:-1], prepared.shape[-2]).to(dtype)
    return scores if score.energy.bias is None else scores + score.energy.bias.to(dtype)


def _plain(query: Tensor, keys: Tensor, energy: Tensor) -> Tensor:
    return (query.unsqueeze(-2) + keys.unsqueeze(-3)).tanh() @ energy


def _forward(query: Tensor, keys: Tensor, energy: Tensor) -> Tensor:
    from regard.kernels.additive import cpu_loops

    out = _shape(query, keys, energy)
    arrays = [each.numpy() for each in (query, keys, energy, out)]
    on_cpu.run(cpu_loops.scores, [(*block, *arrays) for block in on_cpu.blocks(len(query) * keys.shape[1])])
    return out


def _shape(query: Tensor, keys: Tensor, energy: Tensor) -> Tensor:
    return query.new_empty(*query.shape[:-1], keys.shape[1])


def _backward(
    grad: Tensor, query: Tensor, keys: Tensor, energy: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from regard.kernels.additive import cpu_loops

    blocks, of_keys = on_cpu.blocks(len(query) * keys.shape[1]), torch.empty_like(keys)
    apart = len(query) % len(blocks) == 0  # else blocks meet within a row, and each has sums of its own
    of_query = query.new_zeros(1 if apart else len(blocks), *query.shape)
    of_energy = energy.new_zeros(len(blocks), len(energy), dtype=torch.float64)
    arrays = [each.numpy() for each in (grad, query, keys, energy)]
    tasks = [
        (*block, *arrays, mine.numpy(), of_keys.numpy(), sums.numpy())
        for block, mine, sums in zip(blocks, of_query.expand(len(blocks), -1, -1, -1), of_energy, strict=True)
    ]
    on_cpu.run(cpu_loops.gradients, tasks)
    return of_query[0] if apart else of_query.sum(0), of_keys, of_energy.sum(0).float()


def _shapes(grad: Tensor, query: Tensor, keys: Tensor, energy: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(keys), torch.empty_like(energy)


_scores = differentiable("additive_scores", _forward, _backward, (_shape, _shapes), _plain)
register_road((Additive,), "cpu", Road(run, refuses))
