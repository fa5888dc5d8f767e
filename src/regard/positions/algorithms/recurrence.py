"""First-order linear recurrences along the places, exact and without division, and the alignments made of them."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.kernels.registry import find_road

NEVER = -1e30
"""A finite logarithm of zero, whose gradients are zero and not NaN."""


def recurrence(decay: Float[Tensor, "*B K"], inflow: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """c_k = decay_k c_{k-1} + inflow_k, by doubling how far back is seen: O(K log K) in log2 K batched steps.

    >>> recurrence(torch.tensor([9.0, 0.5, 0.5]), torch.tensor([1.0, 0.0, 1.0]))
    tensor([1.0000, 0.5000, 1.2500])
    """
    for distance in _doublings(inflow.shape[-1]):
        inflow = inflow + decay * _behind(inflow, distance, 0.0)
        decay = decay * _behind(decay, distance, 0.0)
    return inflow


def log_recurrence(decay: Float[Tensor, "*B K"], inflow: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """The logarithm of a recurrence whose decay and inflow are given as logarithms, NEVER for zero."""
    for distance in _doublings(inflow.shape[-1]):
        inflow = torch.stack((inflow, decay + _behind(inflow, distance, NEVER))).logsumexp(0)
        decay = decay + _behind(decay, distance, 0.0)
    return inflow


def expected_alignment(
    stop: Float[Tensor, "*B Q K"], go: Float[Tensor, "*B Q K"], start: Float[Tensor, "*B K"]
) -> Float[Tensor, "*B Q K"]:
    """Where each query stops that goes on from where the one before it stopped, the first from `start`.

    c_{i,k} = go_{i,k-1} c_{i,k-1} + alpha_{i-1,k} and alpha_{i,k} = stop_{i,k} c_{i,k} (Raffel et al. 2017, equations
    13 and 14), from the chances to stop at a place and to go on, as they are: nothing is divided or clipped, so no
    mass is lost but what goes on past the last place.

    >>> half = torch.full((2, 3), 0.5)
    >>> expected_alignment(half, half, torch.tensor([1.0, 0.0, 0.0]))
    tensor([[0.5000, 0.2500, 0.1250],
            [0.2500, 0.2500, 0.1875]])
    """
    return (find_road((expected_alignment,), stop, go, start) or by_steps)(stop, go, start)


def by_steps(stop: Tensor, go: Tensor, start: Tensor) -> Tensor:
    """The expected alignment by the plain road: a recurrence for each query in turn."""
    rows, decay = [start], F.pad(go[..., :-1], (1, 0))
    for ends, passes in zip(stop.unbind(-2), decay.unbind(-2), strict=True):
        rows.append(ends * recurrence(passes, rows[-1]))
    return torch.stack(rows[1:], -2)


def _doublings(length: int) -> Iterator[int]:
    return (1 << power for power in range((length - 1).bit_length()))


def _behind(row: Tensor, distance: int, value: float) -> Tensor:
    """What lies so many places behind each place."""
    return F.pad(row[..., :-distance], (distance, 0), value=value)
