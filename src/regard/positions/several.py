"""What the families over k places share: the event, its indicator, and how it reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.positions.base import INFINITY, Positions, read_places, wide

LIMIT = 100_000
"""The most events that `enumerate_support` lists."""


@dataclass(eq=False, repr=False)
class Several(Positions):
    """k of the K places, by their scores; -inf is a place that may not be chosen.

    An event is the k indices of the chosen places. Where fewer than k places are allowed, all of them are chosen, and
    the rest of the event is -1, last. What is read is the sum over the chosen places.

    Shapes: scores (*B, Q, K); batch_shape (*B, Q), event_shape (k,).
    Raises ValueError unless k is at least 1.
    """

    scores: Float[Tensor, "*B Q K"]
    k: int

    has_enumerate_support = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(
                f"{type(self).__name__} expected k, the number of places, of at least 1, but got {self.k}."
            )
        super().__init__(self.scores.shape[:-1], torch.Size([self.k]), validate_args=False)

    @property
    def count(self) -> Int[Tensor, "*B Q"]:
        """How many places are chosen: k, or as many as are allowed."""
        return self._allowed.sum(-1).clamp(max=self.k)

    def indicator(self, z: Int[Tensor, "*SB Q k"]) -> Float[Tensor, "*SB Q K"]:
        """The chosen places as a 0/1 tensor."""
        places = self.scores.shape[-1]
        columns = self.scores.new_zeros(*z.shape[:-1], places + 1)  # the last is nowhere
        return columns.scatter(-1, z.remainder(places + 1), 1)[..., :-1]

    def gather(self, values: Any, z: Int[Tensor, "*SB Q k"]) -> Float[Tensor, "*SB Q V"]:
        """The sum of the values at the k places of each query: time O(k V), whatever K is."""
        return read_places(values, z.flatten(-2)).unflatten(-2, z.shape[-2:]).sum(-2)

    @property
    def _allowed(self) -> Bool[Tensor, "*B Q K"]:
        return self.scores != -INFINITY

    @property
    def _wide_scores(self) -> Tensor:
        return wide(self.scores)

    def _possible(self, z: Tensor) -> Tensor:
        """Whether an event is one: as many places as there must be, all of them distinct and allowed."""
        distinct = (self.indicator(z) * self._allowed).sum(-1)
        return (distinct == self.count) & ((z >= 0).sum(-1) == self.count)

    def _best(self, scores: Tensor) -> Tensor:
        """The indices of the k best scores, best first, -1 for want of any above -inf."""
        best = scores.topk(min(self.k, scores.shape[-1]))
        z = best.indices.masked_fill(best.values == -INFINITY, -1)
        return F.pad(z, (0, self.k - z.shape[-1]), value=-1)

    def _support(self, choose: Callable[..., Iterable], number: Callable[[int, int], int], expand: bool) -> Tensor:
        """Every event of k places, then of fewer, -1 where there is no place."""
        sizes = range(min(self.k, self.scores.shape[-1]), -1, -1)
        check_enumerable(sum(number(self.scores.shape[-1], size) for size in sizes))
        events = [(*z, *(-1,) * (self.k - size)) for size in sizes for z in choose(range(self.scores.shape[-1]), size)]
        support = torch.tensor(events, device=self.scores.device)
        support = support.view(-1, *(1 for _ in self.batch_shape), self.k)
        return support.expand(-1, *self.batch_shape, self.k) if expand else support


def check_enumerable(events: int) -> None:
    """Raises ValueError where there are too many events to list."""
    if events > LIMIT:
        raise ValueError(f"enumerate_support expected at most {LIMIT} events, but got {events}.")
