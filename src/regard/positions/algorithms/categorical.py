"""Draws from a softmax over places and their log-probabilities, of scores that are -inf where nothing may be looked at.

A row of -inf alone looks nowhere, -1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.base import INFINITY, take, wide


def sample(scores: Float[Tensor, "*B K"], noise: Float[Tensor, "*B S"]) -> Int[Tensor, "*B S"]:
    """The place of each uniform number of [0, 1), float64: the first up to which the weights sum to more, the inverse
    of the distribution function (Devroye 1986, "Non-uniform random variate generation", section III.2). Time O(K), and
    O(log K) a draw.

    >>> sample(torch.tensor([0.5, 0.0, 0.5]).log(), torch.tensor([0.2, 0.7], dtype=torch.float64))
    tensor([0, 2])
    """
    return (find_road((sample,), scores, noise) or plain_sample)(scores, noise)


def log_prob(scores: Float[Tensor, "*B K"], z: Int[Tensor, "*B S"]) -> Float[Tensor, "*B S"]:
    """The log-probability of places, -inf where one is impossible. Time O(K).

    >>> log_prob(torch.tensor([0.25, 0.75, 0.0]).log(), torch.tensor([1, 2, -1])).exp()
    tensor([0.7500, 0.0000, 0.0000])
    """
    return (find_road((log_prob,), scores, z) or plain_log_prob)(scores, z)


def plain_sample(scores: Float[Tensor, "*B K"], noise: Float[Tensor, "*B S"]) -> Int[Tensor, "*B S"]:
    """The plain road of `sample`."""
    scores = wide(scores)
    largest = scores.amax(-1, keepdim=True)
    blocked = largest == -INFINITY
    up_to = (scores - largest.masked_fill(blocked, 0)).exp().cumsum(-1, dtype=torch.float64)
    return inverse(up_to, noise * up_to[..., -1:]).clamp(max=scores.shape[-1] - 1).masked_fill(blocked, -1)


def plain_log_prob(scores: Float[Tensor, "*B K"], z: Int[Tensor, "*B S"]) -> Float[Tensor, "*B S"]:
    """The plain road of `log_prob`."""
    scores, blocked = unblock(scores)
    log_weights = scores.log_softmax(-1).masked_fill(blocked, -INFINITY)
    nowhere = torch.zeros_like(log_weights[..., :1]).masked_fill(~blocked, -INFINITY)
    return torch.where(z >= 0, take(log_weights, z.clamp(min=0), -1), nowhere)


def inverse(up_to: Float[Tensor, "*B K"], level: Float[Tensor, "*B S"]) -> Int[Tensor, "*B S"]:
    """The first of the sums that is above a level; K where none is."""
    if torch.compiler.is_compiling():  # and exported, perhaps to ONNX, which cannot search
        return (up_to.unsqueeze(-2) <= level.unsqueeze(-1)).sum(-1)
    return torch.searchsorted(up_to.contiguous(), level.contiguous(), right=True)


def unblock(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The scores with rows of -inf alone made finite, and which rows (*B, 1) those were."""
    blocked = scores.amax(-1, keepdim=True) == -INFINITY
    return scores.masked_fill(blocked, 0), blocked
