"""A pointer that moves: one place at most, of a few that are named, whatever the number of places."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.positions.base import INFINITY, exported, read_places
from regard.positions.onehot import OneHot


@exported
@dataclass(eq=False, repr=False)
class Pointer(OneHot):
    """A `OneHot` over K places of which all but W are impossible: the `targets` of a pointer, such as the place where
    it is and those beside it.

    The next place is that of a move that is drawn, z = targets_j with probability p_j, so that p(z) is the sum of the
    p_j of the moves that lead to z: a head that moves on a tape (Zaremba and Sutskever 2015, "Reinforcement learning
    neural Turing machines"). A move whose target is -1 leads nowhere.

    `weights` or `scores`, as of `OneHot`, are those of the W moves, (*B, Q, W). Draws, the mode, log-probabilities,
    entropies and reads take O(W^2) a query at most and do not depend on K; what is dense, such as `mean`, takes O(K).

    Shapes: targets (*B, Q, W) from -1 to K - 1; batch_shape (*B, Q), event_shape ().
    Raises ValueError unless exactly one of weights and scores is given, of the shape of the targets.

    >>> pointer = Pointer(weights=torch.tensor([[0.25, 0.5, 0.25]]), targets=torch.tensor([[2, 3, 2]]), count=4)
    >>> pointer.mean, pointer.log_prob(torch.tensor([2])).exp()
    (tensor([[0.0000, 0.0000, 0.5000, 0.5000]]), tensor([0.5000]))
    """

    targets: Int[Tensor, "*B Q W"] = field(kw_only=True)
    count: int = field(kw_only=True)
    """How many places there are, K."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets.shape != self._given.shape:
            wanted, given = tuple(self._given.shape), tuple(self.targets.shape)
            raise ValueError(f"targets expected one place for each move, of shape {wanted}, but got {given}.")

    @property
    def places(self) -> int:
        return self.count

    @property
    def moves(self) -> OneHot:
        """The distribution over the moves themselves, whichever place they lead to."""
        return OneHot(weights=self.weights, scores=self.scores)

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        weights = self.moves.mean
        blank = weights.new_zeros(*weights.shape[:-1], self.count + 1)
        return blank.scatter_add(-1, self._columns, weights)[..., :-1]

    @property
    def log_weights(self) -> Float[Tensor, "*B Q places"]:
        support = self.enumerate_support()
        return self.log_prob(support).movedim(0, -1)

    @property
    def mode(self) -> Int[Tensor, "*B Q"]:
        return self._target(self._leading.argmax(-1))

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q"]:
        return self._target(self.moves.sample(sample_shape))

    def log_prob(self, value: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB Q"]:
        moves = self.moves.log_weights  # (*B, Q, W + 1), the last of them nowhere
        leads = self._ends == value.unsqueeze(-1)
        return _log_sum(moves.expand(*leads.shape[:-1], -1), leads)

    def entropy(self) -> Float[Tensor, "*B Q"]:
        log_moves = self.moves.log_weights
        probability = log_moves.exp()
        return -(probability * self._leading.masked_fill(probability == 0, 0)).sum(-1)

    def expect(self, values: Any) -> Float[Tensor, "*B Q V"]:
        """The mean of what is read; time O(Q W V)."""
        weights = self.moves.mean
        seen = read_places(values, self.targets.flatten(-2)).unflatten(-2, self.targets.shape[-2:])  # (*B, Q, W, V)
        if not isinstance(values, Tensor):  # what a reader has at a place without weight may be anything
            seen = seen.masked_fill((weights == 0).unsqueeze(-1), 0)
        return (weights.unsqueeze(-2) @ seen).squeeze(-2)

    @property
    def _ends(self) -> Int[Tensor, "*B Q moves"]:
        """Where each move ends, and last where there is none: nowhere."""
        return torch.nn.functional.pad(self.targets, (0, 1), value=-1)

    @property
    def _columns(self) -> Int[Tensor, "*B Q W"]:
        return self.targets.where(self.targets >= 0, self.count)

    @property
    def _leading(self) -> Float[Tensor, "*B Q moves"]:
        """The log-probability of the place to which each move leads."""
        moves, ends = self.moves.log_weights, self._ends
        return _log_sum(moves.unsqueeze(-2).expand(*moves.shape, -1), ends.unsqueeze(-1) == ends.unsqueeze(-2))

    def _target(self, move: Int[Tensor, "*SB Q"]) -> Int[Tensor, "*SB Q"]:
        ends = self._ends.expand(*move.shape, -1)
        return ends.gather(-1, move.unsqueeze(-1).remainder(ends.shape[-1])).squeeze(-1)


def _log_sum(logs: Float[Tensor, "*B W"], counted: Tensor) -> Float[Tensor, "*B"]:
    """The logarithm of the sum of those that are counted, -inf for none, with gradients of zero there."""
    counted = counted & (logs > -INFINITY) | logs.isnan()
    none = ~counted.any(-1)
    total = logs.masked_fill(~counted, -INFINITY).masked_fill(none.unsqueeze(-1), 0).logsumexp(-1)
    return total.masked_fill(none, -INFINITY)
