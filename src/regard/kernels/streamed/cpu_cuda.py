"""Hard reads of a softmax over very many keys, streamed: (dot, scaled_dot or Additive, softmax, sample or mode).

The keys go by in blocks, of which no more is kept than the best score, its place, and the log-sum-exp of each 256
scores. A draw first chooses 256 by what they sum to, then a place among them, whose scores are computed once more: that
is exact, and takes a random number for each 256 places and for the places of the chosen ones. Time O(Q K D), memory
O(Q K / 256).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regard.kernels.registry import Road, register_road
from regard.over.mappings import masked, softmax
from regard.positions.base import INFINITY, gumbel_like, read_places, take, wide
from regard.reads import mode, sample, spoilt
from regard.scores import Additive, compare, dot, scaled_dot

SMALLEST = 1 << 13
"""Keys below which the plain road is as fast."""

BLOCK, PART = 1 << 16, 256
"""Scores that are formed at a time, and places that a draw chooses at first."""


def refuses(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """Few keys, a gradient that is asked for through the scores, or torch.compile."""
    if keys.shape[-2] < SMALLEST:
        return f"below {SMALLEST} keys the plain road is as fast"
    parameters = score.parameters() if isinstance(score, nn.Module) else ()
    if torch.is_grad_enabled() and any(each.requires_grad for each in (query, keys, *parameters)):
        return "a gradient is asked for through the scores"
    return "torch.compile has its own ways with the plain road" if torch.compiler.is_compiling() else None


def run(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The context (*B, Q, V), the place (*B, Q) and its log-probability."""
    size = PART * max(1, BLOCK // PART // max(1, math.prod(query.shape[:-1])))
    dtype = compare(score, query[..., :1, :], keys[..., :1, :]).dtype
    blocks = [(_sums(scores), *scores.max(-1)) for scores in _scores(score, query, keys, mask, size)]
    sums = torch.cat([each[0] for each in blocks], -1)  # (*B, Q, K / 256)
    total = sums.logsumexp(-1)
    z, of_z = _best(blocks, size) if read is mode else _draw(score, query, keys, mask, sums)
    nowhere = total == -INFINITY
    z, log_prob = z.masked_fill(nowhere, -1), (of_z - total).masked_fill(nowhere, 0)
    return spoilt(read_places(values, z), log_prob), z, log_prob.to(dtype)


def _scores(score: Any, query: Tensor, keys: Tensor, mask: Tensor | None, size: int) -> Iterator[Tensor]:
    """The scores (*B, Q, size) of one block of keys after another, in float32 at least."""
    for first in range(0, keys.shape[-2], size):
        some = slice(first, first + size)
        yield wide(masked(compare(score, query, keys[..., some, :]), None if mask is None else mask[..., some]))


def _sums(scores: Tensor) -> Tensor:
    """The log-sum-exp of each 256 scores."""
    missing = -scores.shape[-1] % PART
    return nn.functional.pad(scores, (0, missing), value=-INFINITY).unflatten(-1, (-1, PART)).logsumexp(-1)


def _best(blocks: Sequence[tuple[Tensor, ...]], size: int) -> tuple[Tensor, Tensor]:
    """The place with the highest score, the first of several, and that score."""
    best, places = (torch.stack([each[part] for each in blocks], -1) for part in (1, 2))
    of_z, block = best.max(-1)
    return places.take_along_dim(block.unsqueeze(-1), -1).squeeze(-1) + size * block, of_z


def _draw(score: Any, query: Tensor, keys: Tensor, mask: Tensor | None, sums: Tensor) -> tuple[Tensor, Tensor]:
    """A place, and its score: first which 256, then which of them."""
    part = (sums + gumbel_like(sums)).argmax(-1, keepdim=True)  # (*B, Q, 1)
    places = part * PART + torch.arange(PART, device=part.device)  # (*B, Q, 256)
    inside = places.clamp(max=keys.shape[-2] - 1)
    some = take(keys, inside.flatten(-2).unsqueeze(-1), dim=-2).unflatten(-2, (-1, PART))  # (*B, Q, 256, D)
    scores = wide(compare(score, query.unsqueeze(-2), some).squeeze(-2))
    scores = scores.masked_fill(places != inside, -INFINITY)
    if mask is not None:
        scores = masked(scores, take(mask.expand(*mask.shape[:-2], places.shape[-2], -1), inside, dim=-1))
    place = (scores + gumbel_like(scores)).argmax(-1, keepdim=True)
    return places.take_along_dim(place, -1).squeeze(-1), scores.take_along_dim(place, -1).squeeze(-1)


for how in (sample, mode):
    register_road((Additive, softmax, how), "cpu", Road(run, refuses))  # by dot products: kernels.hard
    for each in (dot, scaled_dot, Additive):
        register_road((each, softmax, how), "cuda", Road(run, refuses))
