"""A label for every position, in runs that are scored by their length: semi-Markov chains."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from regard.positions.algorithms import semi_markov
from regard.positions.base import Positions, exported, wide
from regard.positions.chain import spanning
from regard.positions.structure import Structure


@exported
@dataclass(eq=False, repr=False)
class SemiMarkov(Structure):
    """A chain in which a run of positions with one label is scored by its length too, and has at most `width` positions
    (Sarawagi and Cohen 2004): p(z) is proportional to the exponential of the sum of scores_{t, z_t}, of
    durations_{w, s} for each run of w positions of label s, and of transitions_{s, s'} for each two runs in succession.

    One event spans the positions: a label for each, -1 where it is absent. The diagonal of the transitions has no
    effect, as positions of one label in succession are one run; an absent position ends a run.

    Shapes: scores (*B, T, S), transitions (*B, S, S) between different labels, durations (*B, width, S), or
    (*B, T, width, S) if they differ by where a run begins: the scores of spans; present (*B, T); batch_shape (*B),
    event_shape (T,). Everything takes time O(T S (S + width)) and, where there is a kernel,
    memory O(T S), the k best and their memory k times that.

    >>> one = torch.zeros(4, 1), torch.zeros(1, 1), torch.zeros(4, 1), torch.ones(4, dtype=torch.bool)
    >>> SemiMarkov(*one).mean.squeeze(-1)
    tensor([1., 1., 1., 1.])
    """

    scores: Float[Tensor, "*B T S"]
    transitions: Float[Tensor, "*B S S"]
    durations: Float[Tensor, "*B width S"] | Float[Tensor, "*B L width S"]
    present: Bool[Tensor, "*B T"]

    def __post_init__(self) -> None:
        super().__init__(self.scores.shape[:-2], self.scores.shape[-2:-1], validate_args=False)

    @property
    def choices(self) -> int:
        return self.scores.shape[-1]

    @property
    def potentials(self) -> Float[Tensor, "*B P"]:
        return torch.cat([each.flatten(self.scores.dim() - 2) for each in self._parts[:3]], -1)

    @property
    def log_z(self) -> Float[Tensor, "*B"]:
        return semi_markov.log_partition(*self._parts)

    @property
    def marginals(self) -> Float[Tensor, "*B P"]:
        return semi_markov.marginals(*self._parts)

    @property
    def mean(self) -> Float[Tensor, "*B T S"]:
        """The probability of each label at each position."""
        labels = self.marginals[..., : self.scores.shape[-2] * self.choices]
        return labels.unflatten(-1, self.scores.shape[-2:]).to(self.scores.dtype)

    def features(self, z: Integer[Tensor, "*SB T"]) -> Float[Tensor, "*SB P"]:
        z, labels = self._where_present(z), self.indicator(z).to(wide(self.scores).dtype)
        begins, ends, lengths = _runs(z)
        follow = labels[..., :-1, :].mT @ (labels * begins.unsqueeze(-1))[..., 1:, :]  # (*S, *B, S, S)
        ends = ends & (z >= 0) & (lengths <= self.durations.shape[-2])
        which, sizes = (lengths - 1) * self.choices + z, self.durations.shape[self.scores.dim() - 2 :]
        if len(sizes) > 2:
            t = torch.arange(z.shape[-1], device=z.device)
            which = which + (t + 1 - lengths) * sizes[1:].numel()
        which, spans = which.where(ends, 0), labels.new_zeros(*z.shape[:-1], sizes.numel())
        return torch.cat((labels.flatten(-2), follow.flatten(-2), spans.scatter_add(-1, which, ends.to(spans))), -1)

    def k_best(self, k: int) -> Int[Tensor, "k *B T"]:
        return semi_markov.k_best(*self._parts, k)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB T"]:
        """A labelling, drawn from the last run to the first."""
        return semi_markov.sample(*self._parts, torch.Size(sample_shape))

    def then(self, *later: Positions) -> Positions:
        raise spanning(self)

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return wide(self.scores), wide(self.transitions), wide(self.durations), self.present

    def _with_parts_of(self, other: "SemiMarkov") -> "SemiMarkov":
        if self.durations.dim() >= other.durations.dim():
            return self
        length, sizes = self.scores.shape[-2], self.durations.shape[-2:]
        return replace(self, durations=self.durations.unsqueeze(-3).expand(*self.batch_shape, length, *sizes))

    def _is_structure(self, z: Tensor) -> Tensor:
        fits = _runs(z)[2] <= self.durations.shape[-2]
        return (((z >= 0) == self.present) & (z < self.choices) & (fits | ~self.present)).all(-1)


def _runs(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether each position of labellings (*S, *B, T) is the first or the last of its run, and how far it has come."""
    changes = z[..., 1:] != z[..., :-1]
    first = torch.cat((torch.ones_like(z[..., :1], dtype=torch.bool), changes), -1)
    last = torch.cat((changes, torch.ones_like(z[..., :1], dtype=torch.bool)), -1)
    t = torch.arange(z.shape[-1], device=z.device)
    return first, last, t - t.where(first, 0).cummax(-1).values + 1
