"""What one often wants to know of the weights, without keeping the weights, and what they come to by group."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.registry import is_transformed
from regard.positions import OneHot, Positions
from regard.positions.base import exported, wide


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


def attention_sum(
    weights: Float[Tensor, "*SB Q K"], groups: Int[Tensor, "*B K"], count: int | None = None
) -> Float[Tensor, "*SB Q N"]:
    """What each query gives to each of N groups of places: the sum of the weights of its places, sum_k w_k (Kadlec
    et al. 2016, "Text Understanding with the Attention Sum Reader Network", equation 2).

    Where the places of a group hold the same word, it is the probability that a place with this word is looked at: how
    pointer and copy networks answer by a word of what they read. Of an event, `positions.indicator(z)`, it is one for
    the group of the place that was read.

    Args:
        weights: (*B, Q, K), such as `out.weights`; draws may be in front.
        groups: the number of each place's group, 0 to N - 1, (*B, K); the weight of a place that is in none, -1, is
            left out.
        count: how many groups there are; one more than the largest of the numbers, if not given.

    Low precision is summed in float32. Time O(Q (K + N)).

    Raises ValueError for shapes that do not fit, and for a number that is none of a group (which is not looked for
    while compiling).

    >>> attention_sum(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([1, 0, 1, -1]), count=3)
    tensor([[0.2000, 0.4000, 0.0000]])
    """
    if weights.shape[-1:] != groups.shape[-1:] or tuple(weights.shape[-1 - groups.dim() : -2]) != groups.shape[:-1]:
        raise ValueError(
            f"groups expected a number for each place of weights {tuple(weights.shape)}, but got {tuple(groups.shape)}."
        )
    count = int(groups.max()) + 1 if count is None else count
    _check_groups(groups, count)
    places = groups.where(groups >= 0, count).unsqueeze(-2).expand(weights.shape)
    sums = wide(weights.new_zeros(*weights.shape[:-1], count + 1))
    return sums.scatter_add(-1, places, wide(weights))[..., :count].to(weights.dtype)


def _check_groups(groups: Tensor, count: int) -> None:
    """Raises ValueError for a number of a group that is none."""
    if torch.compiler.is_compiling() or is_transformed() or groups.numel() == 0:
        return
    for extreme in (groups.min(), groups.max()):
        if not -1 <= extreme < count:
            raise ValueError(f"groups expected numbers from -1 to {count - 1}, but got {extreme.item()}.")
