"""One place at most, of a few that lie side by side: what windows over many places are distributions over."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.positions.algorithms.windows import window_means, window_places
from regard.positions.base import INFINITY, exported
from regard.positions.onehot import OneHot


@exported
@dataclass(eq=False, repr=False)
class Band(OneHot):
    """A `OneHot` over K places of which all but w are impossible: those from `first` on.

    `weights` or `scores`, as of `OneHot`, are those of the w places, (*B, Q, w): zero or -inf where a place lies
    outside of the K. Draws, the mode, log-probabilities, entropies and reads take O(w) a query, and what is dense, such
    as `mean`, O(K).

    Shapes: first (*B, Q); batch_shape (*B, Q), event_shape ().

    >>> positions = Band(weights=torch.tensor([[0.25, 0.75]]), first=torch.tensor([1]), count=4)
    >>> positions.mean, positions.mode
    (tensor([[0.0000, 0.2500, 0.7500, 0.0000]]), tensor([2]))
    """

    first: Int[Tensor, "*B Q"] = field(kw_only=True)
    count: int = field(kw_only=True)
    """How many places there are, K."""

    @property
    def places(self) -> int:
        return self.count

    @property
    def near(self) -> OneHot:
        """The same over the w places alone."""
        return OneHot(weights=self.weights, scores=self.scores)

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        return self._spread(self.near.mean, 0.0)

    @property
    def log_weights(self) -> Float[Tensor, "*B Q places"]:
        places, nowhere = self.near.log_weights.split((self._given.shape[-1], 1), -1)
        return torch.cat((self._spread(places, -INFINITY), nowhere), -1)

    @property
    def mode(self) -> Int[Tensor, "*B Q"]:
        return self._far(self.near.mode)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q"]:
        return self._far(self.near.sample(sample_shape))

    def log_prob(self, value: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB Q"]:
        width, near = self._given.shape[-1], value - self.first
        nowhere, outside = value < 0, (near < 0) | (near >= width)
        log_prob = self.near.log_prob(near.clamp(0, width - 1).masked_fill(nowhere, -1))
        return log_prob.masked_fill(outside & ~nowhere, -INFINITY)

    def entropy(self) -> Float[Tensor, "*B Q"]:
        return self.near.entropy()

    def expect(self, values: Any) -> Float[Tensor, "*B Q V"]:
        """The mean of what is read; time O(Q w V)."""
        if isinstance(values, Tensor):
            return window_means(self.near.mean, values, self.first)
        index = self._index.clamp(0, self.count - 1)
        seen = values.read(index.flatten(-2)).unflatten(-2, index.shape[-2:])  # (*B, Q, w, V)
        weights = self.near.mean
        seen = seen.masked_fill((weights == 0).unsqueeze(-1), 0)
        return (weights.unsqueeze(-2) @ seen).squeeze(-2)

    @property
    def _index(self) -> Int[Tensor, "*B Q w"]:
        return window_places(self.first, self._given.shape[-1])

    def _spread(self, values: Float[Tensor, "*B Q w"], rest: float) -> Float[Tensor, "*B Q K"]:
        """The values at their places among all K; what lies outside goes to a column that is dropped."""
        index = self._index
        columns = index.where((index >= 0) & (index < self.count), self.count)
        blank = values.new_full((*values.shape[:-1], self.count + 1), rest)
        return blank.scatter(-1, columns, values)[..., :-1]

    def _far(self, near: Tensor) -> Tensor:
        """The place of a place of the window, among the K also where it is one of a row of NaN."""
        return torch.where(near < 0, near, (near + self.first).clamp(0, self.count - 1))
