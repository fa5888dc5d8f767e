"""A label for every frame, which say a sequence: connectionist temporal classification."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from regard.positions.algorithms import ctc
from regard.positions.base import INFINITY, Positions, exported, take, wide
from regard.positions.chain import spanning
from regard.positions.structure import Structure, chosen


@exported
@dataclass(eq=False, repr=False)
class CTC(Structure):
    """Paths z of T frames through S labels that say the targets: what is left of z when runs of one label are one, and
    then blanks none (Graves et al. 2006, equations 2 and 3). Of these paths p(z) is proportional to
    exp(sum_t scores_{t, z_t}).

    Where the scores are log-probabilities, `log_z` is the log-likelihood of the targets. `mean` is the probability of
    each label at each frame, and the gradient of `log_z`. One event spans the frames: a label for each, -1 where it is
    absent. An absent frame is left out, as if those on its two sides were neighbours.

    Shapes: scores (*B, T, S), targets (*B, L), with -1 after the last, present (*B, T); batch_shape (*B), event_shape
    (T,). `log_z`, `mean`, `entropy`, `kl`, `mode` and a draw take time O(T L) and memory O(T (L + S)), the k best
    O(T L k). Where the targets do not fit into the frames there is no path, and `log_z` is -inf.

    >>> positions = CTC(torch.zeros(3, 2), torch.tensor([1, 1]), torch.ones(3, dtype=torch.bool))
    >>> positions.mode, positions.log_z
    (tensor([1, 0, 1]), tensor(0.))
    """

    scores: Float[Tensor, "*B T S"]
    targets: Integer[Tensor, "*B L"]
    present: Bool[Tensor, "*B T"]
    blank: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.scores.shape[:-2], self.scores.shape[-2:-1], validate_args=False)

    @property
    def choices(self) -> int:
        return self.scores.shape[-1]

    @property
    def potentials(self) -> Float[Tensor, "*B P"]:
        return wide(self.scores).flatten(-2)

    @property
    def log_z(self) -> Float[Tensor, "*B"]:
        return ctc.log_partition(*self._parts)

    @property
    def marginals(self) -> Float[Tensor, "*B P"]:
        return ctc.marginals(*self._parts).flatten(-2)

    @property
    def mean(self) -> Float[Tensor, "*B T S"]:
        """The probability of each label at each frame."""
        return ctc.marginals(*self._parts).to(self.scores.dtype)

    def features(self, z: Integer[Tensor, "*SB T"]) -> Float[Tensor, "*SB P"]:
        return self.indicator(z).to(wide(self.scores).dtype).flatten(-2)

    def _score(self, z: Tensor) -> Tensor:
        return chosen(wide(self.scores), z.unsqueeze(-1)).squeeze(-1).sum(-1)

    def k_best(self, k: int) -> Int[Tensor, "k *B T"]:
        return ctc.k_best(*self._parts, k)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB T"]:
        """A path, drawn from the last frame to the first."""
        return ctc.sample(*self._parts, torch.Size(sample_shape))

    def then(self, *later: Positions) -> Positions:
        raise spanning(self)

    @property
    def states(self) -> Int[Tensor, "*B N"]:
        """What a path goes through: the targets with blanks between and around them, -1 after the last."""
        return ctc.extended(self.targets.long(), self.blank)

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return wide(self.scores), self.states, self.present

    def _is_structure(self, z: Tensor) -> Tensor:
        states, path = self.states, ctc.closed(z, self.present)
        begins = (path != F.pad(path[..., :-1], (1, 0), value=-1)) & (path != self.blank) & (path >= 0)
        said = (2 * begins.cumsum(-1) - 1).clamp(0, states.shape[-1] - 1)
        right = (take(states, said, -1) == path) | ~begins
        complete = 2 * begins.sum(-1) + 1 == (states >= 0).sum(-1)
        return right.all(-1) & complete & ((z >= 0) == self.present).all(-1)

    def _is_apart(self, other: "CTC") -> Tensor:
        if self.blank != other.blank:
            raise ValueError(f"other expected the blank {self.blank}, but got {other.blank}.")
        size = max(self.states.shape[-1], other.states.shape[-1])
        one, two = (F.pad(each.states, (0, size - each.states.shape[-1]), value=-1) for each in (self, other))
        return (one != two).any(-1)


@exported
@dataclass(eq=False, repr=False)
class ForcedAlignment(CTC):
    """Paths z of T frames through K places in their order, at least one frame in each: from the first place, by none or
    one from frame to frame, to the last. Of these p(z) is proportional to exp(sum_t scores_{t, z_t}).

    They are paths of connectionist temporal classification whose blank, the place K behind all others, is impossible.
    An event is a place for each frame, -1 where it is absent. `targets` (*B, K) are the places that are present, in
    turn, with -1 after the last; `blank` is K. Shapes and costs are those of `CTC`, with K in the place of L and S.

    >>> scores, places = torch.zeros(3, 2), torch.arange(2)
    >>> positions = ForcedAlignment(scores, places, torch.ones(3, dtype=torch.bool), blank=2)
    >>> positions.mean, positions.log_z.exp()
    (tensor([[1.0000, 0.0000],
            [0.5000, 0.5000],
            [0.0000, 1.0000]]), tensor(2.0000))
    """

    @property
    def marginals(self) -> Float[Tensor, "*B P"]:
        return ctc.marginals(*self._parts)[..., :-1].flatten(-2)

    @property
    def mean(self) -> Float[Tensor, "*B T K"]:
        """The probability of each place at each frame."""
        return ctc.marginals(*self._parts)[..., :-1].to(self.scores.dtype)

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return F.pad(wide(self.scores), (0, 1), value=-INFINITY), self.states, self.present
