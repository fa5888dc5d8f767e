"""Scores that know where the queries before have looked: location-aware, and with coverage.

What they carry from query to query, (*B, 2, K), is where the last query looked and the sum over all that did; nothing
is kept on a module.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.positions import Positions
from regard.protocol import Step
from regard.scores import Additive, Score, compare, prepare


class Coverage(Score):
    """The additive score of a place given how much it was looked at before, w . tanh(W q + V k + U c + b) with the
    coverage c, the sum of the weights of all queries before (See et al. 2017, equations 10 and 11).

    W, V and w are the matrices of `additive`, U and b those of `seen`. `coverage_loss` is what it is trained with.
    Time and memory of a step O(K H).

    >>> score = Coverage(query_dim=3, key_dim=5, hidden_dim=8)
    >>> score(torch.ones(1, 3), torch.ones(4, 5)).shape
    torch.Size([1, 4])
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int, features: int = 1):
        super().__init__()
        self.additive = Additive(query_dim, key_dim, hidden_dim)
        self.seen = nn.Linear(features, hidden_dim)

    def features(self, seen: Float[Tensor, "*B 2 K"]) -> Float[Tensor, "*B K F"]:
        """What the score knows of a place from the weights before: here their sum."""
        return seen[..., 1:, :].mT

    def prepare(self, keys: Float[Tensor, "*B K Dk"]) -> Float[Tensor, "*B K H"]:
        """The projected keys, V k."""
        return prepare(self.additive, keys)

    def compare(self, query: Float[Tensor, "*SB Q Dq"], prepared: Float[Tensor, "*B K H"]) -> Float[Tensor, "*SB Q K"]:
        """The scores of first queries, before which nothing was looked at."""
        return compare(self.additive, query, prepared + self.seen.bias)

    def at(self, step: Step) -> Any:
        return self if step.carried is None else _Later(self, self.seen(self.features(step.carried)))

    def next(self, carried: Tensor | None, positions: Positions) -> Float[Tensor, "*B 2 K"] | None:
        weights = positions.mean  # (*B, 1, K)
        if weights.shape[-2] == 0:
            return carried
        total = weights if carried is None else carried[..., 1:, :] + weights
        return torch.cat((weights, total), -2)


class _Later(NamedTuple):
    """The score of a query before which others have looked: their marks (*B, K, H) are added to the keys."""

    score: Coverage
    marks: Tensor

    def prepare(self, keys: Tensor) -> Tensor:
        return self.score.prepare(keys)

    def compare(self, query: Tensor, prepared: Tensor) -> Tensor:
        return compare(self.score.additive, query, prepared + self.marks)

    def __call__(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.compare(query, self.prepare(keys))


class LocationAware(Coverage):
    """The additive score of a place given where the query before looked, w . tanh(W q + V k + U f + b) with the
    features f = F * alpha, a convolution over its weights (Chorowski et al. 2015, equations 8 and 9).

    With `summed` the convolution is over two rows, the weights of the query before and the sum of all before. F is
    `convolution`: `filters` of them, each of `width` places, the rest as in `Coverage`. Time of a step
    O(K filters width + K H). Raises ValueError unless the width is odd.

    >>> score = LocationAware(query_dim=3, key_dim=5, hidden_dim=8, filters=10, width=31)
    >>> score(torch.ones(1, 3), torch.ones(4, 5)).shape
    torch.Size([1, 4])
    """

    def __init__(
        self, query_dim: int, key_dim: int, hidden_dim: int, filters: int = 10, width: int = 201, summed: bool = False
    ):
        super().__init__(query_dim, key_dim, hidden_dim, filters)
        if width % 2 == 0:
            raise ValueError(f"LocationAware expected an odd width, the same number on both sides, but got {width}.")
        self.convolution = nn.Conv1d(2 if summed else 1, filters, width, padding=width // 2, bias=False)

    def features(self, seen: Float[Tensor, "*B 2 K"]) -> Float[Tensor, "*B K F"]:
        """The convolution over the weights before, and their sum if it is over both."""
        rows = seen[..., : self.convolution.in_channels, :]
        found = self.convolution(rows.reshape(math.prod(rows.shape[:-2]), *rows.shape[-2:]))
        return found.view(*rows.shape[:-2], *found.shape[-2:]).mT


def coverage_loss(
    weights: Float[Tensor, "*B Q K"], before: Float[Tensor, "*B K"] | None = None
) -> Float[Tensor, "*B Q"]:
    """How much each query looks again where others before it have looked, sum_k min(a_k, c_k) with c the sum of the
    weights before this query, its own not among them (See et al. 2017, equation 12).

    `before` is the sum of weights of earlier calls: of a `Coverage` score it is `out.state.score[..., 1, :]`.

    >>> coverage_loss(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    tensor([0.0000, 0.5000, 0.5000])
    """
    covered = F.pad(weights.cumsum(-2)[..., :-1, :], (0, 0, 1, 0))
    return torch.minimum(weights, covered if before is None else covered + before.unsqueeze(-2)).sum(-1)
