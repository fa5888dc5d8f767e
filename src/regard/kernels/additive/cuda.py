"""(Additive, softmax, mean) on CUDA in one kernel: c = sum_k softmax_k(v . tanh(W q + U k)) v_k, streaming over the
keys, without the scores and without the tensor of all queries, keys and hidden units.

Time O(Q K H), at one hyperbolic tangent for each in the forward and three in the backward pass; memory O(Q (H + V)) in
the forward pass, and in the backward pass as much again as the keys in float32: it takes as many queries at a time as
there are hidden units. Sums are in float32, and always in the same order.
"""

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cuda
from regard.kernels.additive.cpu import is_matrix, projected
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.over.mappings import masked, softmax
from regard.reads import Read, mean
from regard.scores import Additive

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
LARGEST = 1024
"""The largest value, which a program holds for each of its queries."""
FEW = 8
"""Queries below which each is a tile of its own, not part of one of 16."""
NARROW = 40
"""Projections up to here have exponentials that a float32 holds."""


def refuses(
    score: Additive, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """Values that are no tensor or too wide, an energy that is more than a matrix, float64, or several dtypes outside
    of autocast."""
    if not is_matrix(score.energy):
        return "the energy is more than a matrix"
    if not isinstance(values, Tensor):
        return "the values are no tensor"
    types = {each.dtype for each in (query, keys, values, score.energy.weight)}
    if not types.issubset(FLOATS):
        return "it takes float32, bfloat16 and float16"
    if len(types) > 1 and not torch.is_autocast_enabled(query.device.type):
        return "query, keys, values and energy have several dtypes"
    if values.shape[-1] > LARGEST:
        return f"a value is wider than {LARGEST}"
    return "there is nothing to do" if 0 in (query.numel(), keys.numel(), values.numel()) else None


def run(
    score: Additive, over: Any, read: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Read:
    """The contexts (*S, *B, Q, V): draws in front become queries of their row."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype
    asked, batch = projected(score, query), keys.shape[:-2]  # (*S, *B, Q, H)
    rows, draws = math.prod(batch), math.prod(query.shape[: query.dim() - keys.dim()])
    asked = asked.reshape(draws, rows, *asked.shape[-2:]).transpose(0, 1).flatten(1, 2)  # (N, S Q, H)
    keys, values = (each.reshape(rows, *each.shape[-2:]) for each in (keys, values))
    if mask is not None:  # with two dimensions for the batch, as those of MultiHead cannot be made one without a copy
        mask = mask.reshape(math.prod(batch[:-1]), batch[-1] if batch else 1, *mask.shape[-2:])
        mask = mask.expand(-1, -1, query.shape[-2], keys.shape[-2])
    contexts = _contexts(asked, keys, score.energy.weight[0], values, mask)  # (N, S Q, V)
    contexts = contexts.view(rows, draws, query.shape[-2], values.shape[-1]).transpose(0, 1)
    return contexts.reshape(*query.shape[:-1], values.shape[-1]).to(dtype), None, None


def _plain(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    scores = (query.unsqueeze(-2) + keys.unsqueeze(-3)).tanh() @ energy
    if mask is not None:
        mask = mask.flatten(0, 1).repeat(1, query.shape[1] // mask.shape[-2], 1)
    return mean(softmax(masked(scores, mask)), values.to(scores.dtype))[0].to(values.dtype)


def _forward(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    from regard.kernels.additive import cuda_loops as loops

    out, logs = _shape(query, keys, energy, values, mask)
    given = _Given(query, keys, energy, values, mask)
    width = _power(values.shape[-1], LARGEST)
    programs = len(query) * -(-query.shape[1] // given.tile["BQ"])
    sizes = (*given.strides, *given.sizes)
    warps = 8 if width > 256 else 4  # so that the contexts stay in registers
    on_cuda.run(loops.contexts, programs, *given.tensors, out, logs, *sizes, **given.tile, BV=width, num_warps=warps)
    return out, logs


def _shape(query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    shape = query.shape[:2]
    return values.new_empty(*shape, values.shape[-1]), query.new_empty(shape, dtype=torch.float32)


def _backward(
    grad: Tensor,
    query: Tensor,
    keys: Tensor,
    energy: Tensor,
    values: Tensor,
    mask: Tensor | None,
    context: Tensor,
    logs: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from regard.kernels.additive import cuda_loops as loops

    given = _Given(query, keys, energy, values, mask)
    rows, queries, hidden = query.shape
    places, chunk = keys.shape[1], min(queries, max(16, hidden))
    of_query, of_keys, of_values = (each.new_zeros(each.shape, dtype=torch.float32) for each in (query, keys, values))
    of_energy = energy.new_zeros(hidden, dtype=torch.float32)
    for start in range(0, queries, chunk):
        some, slope = query[:, start : start + chunk], grad[:, start : start + chunk]
        size = some.shape[1]
        weights = grad.new_empty(rows, size, places)
        slopes = weights.new_empty(weights.shape, dtype=torch.float32)
        on_cuda.run(
            *(loops.slopes, rows * -(-size // given.tile["BQ"]) * -(-places // given.tile["BK"])),
            *(grad, context, logs, *given.tensors, weights, slopes),
            *(*given.strides, start, size, *given.sizes),
            **given.tile,
            BV=_power(values.shape[-1], 64),
        )
        with torch.autocast(query.device.type, enabled=False):
            of_values += weights.mT @ slope
        sums = slopes.new_empty(rows * (size if size < FEW else -(-size // 16)), hidden)
        _add(of_query[:, start : start + chunk], sums, slopes, some, keys, given)
        _add(of_keys, None, slopes.mT, keys, some, given)
        of_energy += sums.sum(0)
    return of_query.to(query), of_keys.to(keys), of_energy.to(energy), of_values.to(values)


def _add(out: Tensor, sums: Tensor | None, slopes: Tensor, query: Tensor, keys: Tensor, given: "_Given") -> None:
    """Adds what the slopes of the scores make of the query's gradients; `sums` gets the energy's, a row a tile."""
    from regard.kernels.additive import cuda_loops as loops

    rows, queries, hidden = query.shape
    few, fewer = queries < FEW, keys.shape[1] < FEW
    units = _power(hidden, 64 if few or fewer else 16)
    blocks = queries if few else -(-queries // 16)
    on_cuda.run(
        *(loops.gradients, rows * blocks * -(-hidden // units)),
        *(slopes, query, keys, given.energy, given.narrow, out, out if sums is None else sums),
        *(*slopes.stride(), *query.stride(), *keys.stride(), out.stride(0), queries, keys.shape[1], hidden),
        ENERGY=sums is not None,
        FACTORS=given.tile["FACTORS"] and not (few or fewer),
        BQ=1 if few else 16,
        BK=1 if fewer else 16,
        BH=units,
    )


def _shapes(
    grad: Tensor,
    query: Tensor,
    keys: Tensor,
    energy: Tensor,
    values: Tensor,
    mask: Tensor | None,
    context: Tensor,
    logs: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    query, keys, energy, values = (each.new_empty(each.shape) for each in (query, keys, energy, values))
    return query, keys, energy, values


class _Given:
    """The arguments as the kernels that make scores take them."""

    def __init__(self, query: Tensor, keys: Tensor, energy: Tensor, values: Tensor, mask: Tensor | None):
        few = query.shape[1] < FEW
        self.energy = energy.contiguous()
        self.narrow = self.energy if few else _narrow(query, keys)
        looked = query if mask is None else mask.view(torch.uint8)
        self.tensors = (query, keys, self.energy, values, looked, self.narrow)
        looks = (0, 0, 0, 0) if mask is None else mask.stride()
        self.strides = (*query.stride(), *keys.stride(), *values.stride(), *looks)
        period, inner = (1, 1) if mask is None else (mask.shape[2], mask.shape[1])
        self.sizes = (query.shape[1], period, *keys.shape[1:], values.shape[-1], inner)
        self.tile: dict[str, Any] = dict(
            MASKED=mask is not None,
            FACTORS=not few,
            PRECISION="ieee" if values.dtype == torch.float32 else "tf32",
            BQ=1 if few else 16,
            BK=32 if few else 16,
            BH=_power(query.shape[2], 64 if few else 16),
        )


def _narrow(query: Tensor, keys: Tensor) -> Tensor:
    """Whether the projections in a row of the batch are small enough for a product of exponentials; NaN is not."""
    query, keys = (torch.linalg.vector_norm(each, math.inf, (1, 2)) for each in (query, keys))
    return (torch.maximum(query, keys) <= NARROW).int()


def _power(size: int, most: int) -> int:
    """The power of two from 16 to `most` that holds the size or is the most."""
    return min(most, max(16, 1 << (size - 1).bit_length()))


_contexts = differentiable("additive_contexts", _forward, _backward, (_shape, _shapes), _plain)
if find_spec("triton"):
    register_road((Additive, softmax, mean), "cuda", Road(run, refuses))
