"""Windows that compute only what lies in them: (dot, scaled_dot, Cosine, Bilinear or Additive, local).

The mean of a window that moves on by one place a query is read by tiles: so many queries beside each other look into
as many places, and 2 radius more, which go to PyTorch's SDPA as if they were a batch; time O(Q (tile + w) D) for
windows of w places, memory O(Q D). Of other windows and for other reads the scores of the w places are formed, time
O(Q w D), memory O(Q w), but for Additive, whose keys are gathered: O(Q w D).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from regard.kernels.dot import cpu_cuda as sdpa
from regard.kernels.registry import Road, register_road
from regard.over.local import GaussianWindow, MovingWindow, fall
from regard.over.mappings import masked, softmax
from regard.positions import Band
from regard.positions.algorithms.windows import take_rows, window_places, window_rows, window_scores
from regard.positions.base import take
from regard.reads import Read, mean
from regard.scores import Additive, Bilinear, Cosine, compare, dot, scaled_dot

TILES = 32, 128
"""The fewest and the most queries of a tile: as many as the radius in between."""
SAVED = 1 << 17
"""Pairs of a query and a place that need not be compared, from where on tiles pay; a compared one counts twice."""
FEW = 1 << 14
"""The same for windows of which the scores are formed."""


def refuses_mean(
    score: Any, over: MovingWindow, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Any
) -> str | None:
    """What PyTorch's SDPA refuses."""
    return sdpa.refuses(score, softmax, read, query, keys, values, mask)


def run_mean(
    score: Any, over: MovingWindow, read: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Read:
    """The context, by tiles or, where they would overlap much, from all places; of one query from its window alone."""
    queries, places = query.shape[-2], keys.shape[-2]
    if queries == 1:
        return sdpa.run(score, softmax, mean, query, *_near(over, keys, values, mask))
    size = tile_size(queries, over.radius)
    width = size + 2 * over.radius
    if queries * (places - 2 * width) < SAVED:
        inside = over.inside(queries, places, query.device)
        return sdpa.run(score, softmax, mean, query, keys, values, inside if mask is None else inside & mask)
    first = over.first(queries, query.device, size).expand(*query.shape[:-2], -1)  # (*B, N)
    seen, read = (window_rows(each, first, width) for each in (keys, values))  # (*B, N, width, D)
    allowed = _allowed(window_places(first, width), size, places, mask)
    context = sdpa.run(score, softmax, mean, _tiled(query, size), seen, read, allowed)[0]
    return context.flatten(-3, -2)[..., :queries, :], None, None


def _near(
    over: MovingWindow, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The keys, values and mask of the window of one query; those outside of the K places have a mask of False."""
    places, radius = keys.shape[-2], over.radius
    if isinstance(over.start, int):
        centre = min(max(over.start, -radius), places - 1 + radius)
        some = slice(max(0, centre - radius), min(places, centre + radius + 1))
        if some.start < some.stop:
            return keys[..., some, :], values[..., some, :], None if mask is None else mask[..., some]
    if places <= 2 * radius + 1:
        inside = over.inside(1, places, keys.device)
        return keys, values, inside if mask is None else inside & mask
    index = window_places(over.first(1, keys.device), 2 * radius + 1).squeeze(-2)  # (*B, w)
    near = index.clamp(0, places - 1)
    inside, near = (index == near).unsqueeze(-2), near.expand(*keys.shape[:-2], -1)
    if mask is not None:
        inside = inside & take(mask, near.unsqueeze(-2), dim=-1)
    return take_rows(keys, near), take_rows(values, near), inside


def tile_size(queries: int, radius: int) -> int:
    """How many queries each tile has, of which the last may lack some."""
    tiles = -(-queries // sorted((*TILES, radius))[1])
    return -(-queries // tiles) if tiles else 1


def _tiled(rows: Tensor, size: int) -> Tensor:
    """Rows (*B, Q, D) as tiles of so many (*B, N, size, D)."""
    return pad(rows, (0, 0, 0, -rows.shape[-2] % size)).unflatten(-2, (-1, size))


def _allowed(index: Tensor, size: int, places: int, mask: Tensor | None) -> Tensor:
    """Which of a tile's places (*B, N, S) each of its queries may look at, (*B, N, size, S)."""
    width, near = index.shape[-1], index.clamp(0, places - 1)
    band = MovingWindow((width - size) // 2, (width - size) // 2).inside(size, width, index.device)
    allowed = band & (index == near).unsqueeze(-2)
    if mask is None:
        return allowed
    rows = mask.unsqueeze(-3) if mask.shape[-2] == 1 else _tiled(mask, size)  # (*B, N, size, K)
    near = near.expand(*torch.broadcast_shapes(mask.shape[:-2], near.shape[:-2]), -1, -1)
    return allowed & take(rows, near.unsqueeze(-2), dim=-1)


def refuses(score: Any, over: Any, query: Tensor, keys: Tensor, mask: Tensor | None) -> str | None:
    """Windows among few more places."""
    saved = query.shape[-2] * (keys.shape[-2] - 2 * (2 * over.radius + 1))
    return None if saved >= FEW else f"the windows save fewer than {FEW} scores"


def run(score: Any, over: Any, query: Tensor, keys: Tensor, mask: Tensor | None) -> Band:
    """The distribution over the places of the windows."""
    width, count = 2 * over.radius + 1, keys.shape[-2]
    first = over.first(query.shape[-2], query.device).clamp(-width, count).expand(query.shape[:-1])  # (*B, Q)
    index = window_places(first, width)
    near = index.clamp(0, count - 1)
    inside = index == near
    if mask is not None:
        inside = inside & take(mask.expand(*mask.shape[:-2], query.shape[-2], -1), near, dim=-1)
    band = Band(scores=masked(_scores(score, query, keys, first, width), inside), first=first, count=count)
    if type(over) is MovingWindow:
        return band
    weights = band.near.mean * fall(index - over.centre.unsqueeze(-1), over.radius)
    return Band(weights=weights, first=first, count=count)


def _scores(score: Any, query: Tensor, keys: Tensor, first: Tensor, width: int) -> Tensor:
    """The scores of the places of each window, (*B, Q, w)."""
    if type(score) is Additive:
        return compare(score, query.unsqueeze(-2), window_rows(keys, first, width)).squeeze(-2)
    query = score.sharpened(query) if type(score) is Cosine else query
    scale = math.sqrt(query.shape[-1]) if score is scaled_dot else 1.0
    return window_scores(query / scale, keys, first, width)


for device in ("cpu", "cuda"):
    for score in (dot, scaled_dot, Cosine, Bilinear, Additive):
        for window in (MovingWindow, GaussianWindow):
            register_road((score, window), device, Road(run, refuses, transforms=True))
    for score in (dot, scaled_dot, Cosine, Bilinear):
        register_road((score, MovingWindow, mean), device, Road(run_mean, refuses_mean))
