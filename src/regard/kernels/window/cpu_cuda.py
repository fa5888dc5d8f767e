"""Windows that compute only what lies in them: (dot, scaled_dot, Cosine, Bilinear or Additive, local).

The keys of each query's window are gathered, and scored, so that time and memory are O(Q w D) for windows of w places.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from regard.kernels.registry import Road, register_road
from regard.over.mappings import gaussian_window, masked, plain_window
from regard.positions import Band
from regard.positions.base import take
from regard.scores import Additive, Bilinear, Cosine, compare, dot, scaled_dot

FEWEST = 16
"""Windows that fit beside each other into the places from where on gathering them pays."""


def refuses(score: Any, over: partial, query: Tensor, keys: Tensor, mask: Tensor | None) -> str | None:
    """Not many more places than a window has."""
    _, radius = over.args
    enough = keys.shape[-2] >= FEWEST * (2 * radius + 1)
    return None if enough else f"the keys are fewer than those of {FEWEST} windows"


def run(score: Any, over: partial, query: Tensor, keys: Tensor, mask: Tensor | None) -> Band:
    """The distribution over the places of the windows."""
    (centre, radius), count = over.args, keys.shape[-2]
    centre = centre.expand(query.shape[:-1])  # (*B, Q)
    first = centre.nan_to_num().round().long() - radius  # NaN shows in the scores or in the fall
    index = first.unsqueeze(-1) + torch.arange(2 * radius + 1, device=query.device)  # (*B, Q, w)
    near = index.clamp(0, count - 1)
    inside = index == near
    some = take(keys, near.flatten(-2).unsqueeze(-1), dim=-2).unflatten(-2, near.shape[-2:])  # (*B, Q, w, D)
    if mask is not None:
        inside = inside & take(mask.expand(*mask.shape[:-2], near.shape[-2], -1), near, dim=-1)
    scores = masked(compare(score, query.unsqueeze(-2), some).squeeze(-2), inside)
    band = Band(scores=scores, first=first, count=count)
    if over.func is plain_window:
        return band
    fall = torch.exp(-2 * ((index - centre.unsqueeze(-1)) / radius).square())
    return Band(weights=band.near.mean * fall, first=first, count=count)


for score in (dot, scaled_dot, Cosine, Bilinear, Additive):
    for window in (plain_window, gaussian_window):
        for device in ("cpu", "cuda"):
            register_road((score, (partial, window)), device, Road(run, refuses, transforms=True))
