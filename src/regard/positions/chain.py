"""A label for every position, each depending on that of its neighbours: linear chains."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from regard.positions.algorithms import linear_chain
from regard.positions.base import Positions, exported, read_places, wide
from regard.positions.structure import Structure, chosen


@exported
@dataclass(eq=False, repr=False)
class Chain(Structure):
    """A linear-chain conditional random field: labellings z of T positions by S states, with probability proportional
    to exp(sum_t scores_{t, z_t} + sum_t transitions_{z_t, z_{t+1}}) (Lafferty et al. 2001, equation 1).

    One event spans the positions: a label for each, -1 where it is absent. As attention, the positions are the queries
    and the labels the places: a query looks at one place, depending on where those beside it look. A transition
    counts where both of its positions are present.

    Shapes: scores (*B, T, S), transitions (*B, S, S) from row to column, or (*B, T-1, S, S) if they differ from
    position to position, present (*B, T); batch_shape (*B), event_shape (T,). `log_z`, `mean`, `entropy` and `kl` take
    time O(T S^2) and memory O(T S), `mode` and a draw the same, the k best O(T S^2 k).

    >>> positions = Chain(torch.zeros(3, 2), torch.zeros(2, 2), torch.ones(3, dtype=torch.bool))
    >>> positions.log_z.exp(), positions.log_prob(torch.tensor([0, 1, 1])).exp()
    (tensor(8.), tensor(0.1250))
    """

    scores: Float[Tensor, "*B T S"]
    transitions: Float[Tensor, "*B S S"] | Float[Tensor, "*B L S S"]
    present: Bool[Tensor, "*B T"]

    def __post_init__(self) -> None:
        super().__init__(self.scores.shape[:-2], self.scores.shape[-2:-1], validate_args=False)

    @property
    def choices(self) -> int:
        return self.scores.shape[-1]

    @property
    def potentials(self) -> Float[Tensor, "*B P"]:
        return torch.cat([each.flatten(self.scores.dim() - 2) for each in self._parts[:2]], -1)

    @property
    def log_z(self) -> Float[Tensor, "*B"]:
        return linear_chain.log_partition(*self._parts)

    @property
    def marginals(self) -> Float[Tensor, "*B P"]:
        return linear_chain.marginals(*self._parts)

    @property
    def mean(self) -> Float[Tensor, "*B T S"]:
        """The probability of each label at each position."""
        return linear_chain.label_means(*self._parts).to(self.scores.dtype)

    def features(self, z: Integer[Tensor, "*SB T"]) -> Float[Tensor, "*SB P"]:
        labels = self.indicator(z).to(self._parts[0].dtype)
        if self.transitions.dim() > self.scores.dim():
            follow = labels[..., :-1, :].unsqueeze(-1) * labels[..., 1:, :].unsqueeze(-2)  # (*S, *B, T-1, S, S)
            return torch.cat((labels.flatten(-2), follow.flatten(-3)), -1)
        follow = labels[..., :-1, :].mT @ labels[..., 1:, :]  # (*S, *B, S, S)
        return torch.cat((labels.flatten(-2), follow.flatten(-2)), -1)

    def _score(self, z: Tensor) -> Tensor:
        nodes, transitions, _ = self._parts
        before, after = z[..., :-1], z[..., 1:]
        follow = (before * self.choices + after).where((before >= 0) & (after >= 0), -1)  # (*S, *B, T-1)
        each = transitions.dim() > nodes.dim()
        linked = chosen(transitions.flatten(-2), follow.unsqueeze(-1) if each else follow)
        return chosen(nodes, z.unsqueeze(-1)).flatten(-2).sum(-1) + (linked.squeeze(-1) if each else linked).sum(-1)

    def k_best(self, k: int) -> Int[Tensor, "k *B T"]:
        return linear_chain.k_best(*self._parts, k)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB T"]:
        """A labelling, drawn from the last position to the first (forward filtering, backward sampling)."""
        return linear_chain.sample(*self._parts, torch.Size(sample_shape))

    def then(self, *later: Positions) -> Positions:
        raise spanning(self)

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return wide(self.scores), wide(self.transitions), self.present

    def _with_parts_of(self, other: "Chain") -> "Chain":
        if self.transitions.dim() >= other.transitions.dim():
            return self
        steps = other.transitions.shape[-3]
        return replace(self, transitions=self.transitions.unsqueeze(-3).expand(*self.batch_shape, steps, -1, -1))

    def _is_structure(self, z: Tensor) -> Tensor:
        return (((z >= 0) == self.present) & (z < self.choices)).all(-1)


@exported
@dataclass(eq=False, repr=False)
class Segments(Structure):
    """Segmentation attention: sets z of the K places, a label 0 or 1 for each, that like to come in runs, with
    probability proportional to exp(sum_k z_k s_k + stay * #{k: z_k = z_{k+1}}) (Kim et al. 2017, section 3.1).

    One chain a query. An event is a label for each place, -1 where it is absent; what is read is the sum of the values
    with label 1. `mean` is the probability of label 1.

    Shapes: scores (*B, Q, K), stay (*B, Q), present (*B, Q, K); batch_shape (*B, Q), event_shape (K,). Everything
    takes O(K) a query.

    >>> present = torch.ones(1, 3, dtype=torch.bool)
    >>> positions = Segments(torch.tensor([[2.0, -1.0, 2.0]]), torch.tensor([3.0]), present)
    >>> positions.mode
    tensor([[1, 1, 1]])
    """

    scores: Float[Tensor, "*B Q K"]
    stay: Float[Tensor, "*B Q"]
    present: Bool[Tensor, "*B Q K"]

    def __post_init__(self) -> None:
        super().__init__(self.scores.shape[:-1], self.scores.shape[-1:], validate_args=False)

    @property
    def choices(self) -> int:
        return 2

    @property
    def chain(self) -> Chain:
        """The same as a chain of the states 0 and 1."""
        return Chain(*linear_chain.two_labels(self.scores, self.stay), self.present)

    @property
    def potentials(self) -> Float[Tensor, "*B Q P"]:
        return self.chain.potentials

    @property
    def log_z(self) -> Float[Tensor, "*B Q"]:
        return self.chain.log_z

    @property
    def marginals(self) -> Float[Tensor, "*B Q P"]:
        return self.chain.marginals

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        """The probability that each place is looked at."""
        return linear_chain.segment_means(wide(self.scores), wide(self.stay), self.present).to(self.scores.dtype)

    def features(self, z: Integer[Tensor, "*SB Q K"]) -> Float[Tensor, "*SB Q P"]:
        return self.chain.features(z)

    def _score(self, z: Tensor) -> Tensor:
        return self.chain._score(z)

    def indicator(self, z: Integer[Tensor, "*SB Q K"]) -> Float[Tensor, "*SB Q K"]:
        """Which places have label 1, as a 0/1 tensor."""
        return (self._where_present(z) == 1).to(self.scores.dtype)

    def gather(self, values: Any, z: Integer[Tensor, "*SB Q K"]) -> Float[Tensor, "*SB Q V"]:
        """The sum of the values at the places with label 1; a reader is asked for these places alone."""
        if isinstance(values, Tensor):
            return self.indicator(z).to(values.dtype) @ values
        chosen = self._where_present(z) == 1
        places = torch.arange(z.shape[-1], device=z.device).where(chosen, -1)
        return read_places(values, places.flatten(-2)).unflatten(-2, z.shape[-2:]).sum(-2)

    def k_best(self, k: int) -> Int[Tensor, "k *B Q K"]:
        return self.chain.k_best(k)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q K"]:
        """A segmentation for every query."""
        return self.chain.sample(sample_shape)

    def _is_structure(self, z: Tensor) -> Tensor:
        return self.chain._is_structure(z)


def spanning(positions: Positions) -> TypeError:
    """What is wrong with forming an event that spans the queries from one query after another."""
    name = type(positions).__name__
    return TypeError(f"score expected to carry nothing, as {name} spans all queries, but it hands on what it saw.")
