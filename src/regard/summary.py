"""What one often wants to know of the weights, without keeping the weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.positions import OneHot, Positions
from regard.positions.base import exported


@exported
@dataclass(eq=False)
class Summary:
    """What is left of weights (*B, Q, K) when they are gone."""

    entropy: Float[Tensor, "*B Q"]
    """Of the distribution, in nats."""
    weights: Float[Tensor, "*B Q top"]
    """The largest weights, the largest first."""
    places: Int[Tensor, "*B Q top"]
    """Where they are."""
    coverage: Float[Tensor, "*B K"]
    """What each place was given by all queries together: the sum of its weights."""
    log_sum_exp: Float[Tensor, "*B Q"] | None = None
    """Of the scores, where the weights are their softmax."""


def summary_of(positions: Positions, top: int) -> Summary:
    """The summary of a distribution over places, with its `top` largest weights or all if there are fewer.

    Raises ValueError if top is below one.

    >>> found = summary_of(OneHot(weights=torch.tensor([[0.25, 0.75, 0.0]])), top=2)
    >>> found.weights, found.places, found.coverage
    (tensor([[0.7500, 0.2500]]), tensor([[1, 0]]), tensor([0.2500, 0.7500, 0.0000]))
    """
    if top < 1:
        raise ValueError(f"summary expected top of at least 1, but got {top}.")
    weights = positions.mean
    largest, places = weights.topk(min(top, weights.shape[-1]), -1)
    scores = positions.scores if type(positions) is OneHot else None
    log_sum_exp = None if scores is None else scores.logsumexp(-1)
    return Summary(positions.entropy(), largest, places, weights.sum(-2), log_sum_exp)


def joined(parts: Sequence[Summary]) -> Summary:
    """One summary of what were blocks of queries."""

    def rows(name: str, dim: int) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts], dim)

    total = None if parts[0].log_sum_exp is None else rows("log_sum_exp", -1)
    coverage = torch.stack([part.coverage for part in parts]).sum(0)
    return Summary(rows("entropy", -1), rows("weights", -2), rows("places", -2), coverage, total)
