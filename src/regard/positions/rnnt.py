"""The frame at which each label of a sequence is said: the recurrent neural network transducer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from regard.positions.algorithms.ctc import closing
from regard.positions.base import Positions, exported, take, wide
from regard.positions.chain import Chain, spanning
from regard.positions.structure import Structure


@exported
@dataclass(eq=False, repr=False)
class RNNT(Structure):
    """Alignments z of L labels with T frames: label l is said at frame z_l, none earlier than the one before, several
    at one frame if need be (Graves 2012, "Sequence Transduction with Recurrent Neural Networks", section 2).

    A path goes through a lattice: at frame t, after u labels, it says label u + 1, and stays there, or a blank, and
    goes to the next frame; it ends with a blank at the last one. p(z) is proportional to the exponential of the sum of
    scores_{t, u, .} of what it says. Where the scores are log-probabilities, `log_z` is the log-likelihood of the
    targets. `mean` is the probability of each label at each frame: as attention, the labels are the queries, and the
    frames the places. One event spans the labels: a frame for each, -1 where there is none.

    Shapes: scores (*B, T, L+1, S), targets (*B, L), with -1 after the last, frames (*B, T), those that are present;
    batch_shape (*B), event_shape (L,). It is a chain over the T + L steps of a path, each at an antidiagonal of the
    lattice: time and memory O((T + L) L^2), the k best k times that.

    >>> positions = RNNT(torch.zeros(2, 2, 2), torch.tensor([1]), torch.ones(2, dtype=torch.bool))
    >>> positions.log_z.exp(), positions.mean
    (tensor(2.), tensor([[0.5000, 0.5000]]))
    """

    scores: Float[Tensor, "*B T U S"]
    targets: Integer[Tensor, "*B L"]
    frames: Bool[Tensor, "*B T"]
    blank: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.targets.shape[:-1], self.targets.shape[-1:], validate_args=False)

    @property
    def present(self) -> Bool[Tensor, "*B L"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Which labels there are."""
        return self.targets >= 0

    @property
    def choices(self) -> int:
        return self.scores.shape[-3]

    @property
    def chain(self) -> Chain:
        """The same as a chain whose state at step t + u, from 0 to T + L, is the number u of labels that were said."""
        length, labels = self.scores.shape[-3], self.targets.shape[-1]
        blank, label = self._said
        s, u = (torch.arange(size, device=self.device) for size in (length + labels, labels + 1))
        t = s.unsqueeze(-1) - u  # (T + L, L + 1)
        there = (t >= 0) & (t < self._count)  # (*B, T + L, L + 1)
        stay, move = (self._along(each, t).masked_fill(~there, -torch.inf) for each in (blank, label))
        step = u - u.unsqueeze(-1)
        links = stay.unsqueeze(-1).where(step == 0, -torch.inf)
        links = move.unsqueeze(-1).where(step == 1, links)  # (*B, T + L, L + 1, L + 1)
        many = self.present.sum(-1)[..., None, None]  # (*B, 1, 1)
        s = torch.arange(length + labels + 1, device=self.device).unsqueeze(-1)
        wrong = (s == 0) & (u > 0) | (s == self._count + many) & (u != many)
        return Chain(blank.new_zeros(()).masked_fill(wrong, -torch.inf), links, (s <= self._count + many).squeeze(-1))

    @property
    def potentials(self) -> Float[Tensor, "*B P"]:
        return self.chain.potentials

    @property
    def log_z(self) -> Float[Tensor, "*B"]:
        return self.chain.log_z

    @property
    def marginals(self) -> Float[Tensor, "*B P"]:
        return self.chain.marginals

    @property
    def mean(self) -> Float[Tensor, "*B L T"]:
        """The probability of each frame for each label."""
        length, labels = self.scores.shape[-3], self.targets.shape[-1]
        states, steps = labels + 1, length + labels
        links = self.marginals[..., (steps + 1) * states :].unflatten(-1, (steps, states, states))
        moves = links.diagonal(1, -2, -1)  # (*B, T + L, L), said as label u + 1 at step t + u
        t, u = (torch.arange(size, device=self.device) for size in (length, labels))
        found = moves[..., t + u.unsqueeze(-1), u.unsqueeze(-1)]  # (*B, L, T), of the frames in their order
        return take(found, closing(self.frames).argsort(-1).unsqueeze(-2), -1).to(self.scores.dtype)

    def features(self, z: Integer[Tensor, "*SB L"]) -> Float[Tensor, "*SB P"]:
        return self.chain.features(self._states_of(self._where_present(z)))

    def _score(self, z: Tensor) -> Tensor:
        chain = self.chain
        return chain._score(chain._where_present(self._states_of(z)))

    def _states_of(self, z: Tensor) -> Tensor:
        """How many labels were said at each step, from the frame of each label."""
        places = take(closing(self.frames).argsort(-1), z.clamp(0, self.choices - 1), -1)
        said = places + torch.arange(z.shape[-1], device=self.device)  # the step at which each label is said
        steps = torch.arange(self.choices + z.shape[-1] + 1, device=self.device)
        return ((said.unsqueeze(-2) < steps.unsqueeze(-1)) & (z >= 0).unsqueeze(-2)).sum(-1)

    def k_best(self, k: int) -> Int[Tensor, "k *B L"]:
        return self._frames_of(self.chain.k_best(k))

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB L"]:
        """An alignment, drawn from the last label to the first."""
        return self._frames_of(self.chain.sample(sample_shape))

    def then(self, *later: Positions) -> Positions:
        raise spanning(self)

    @property
    def _count(self) -> Tensor:
        """How many frames there are, (*B, 1, 1)."""
        return self.frames.sum(-1)[..., None, None]

    @property
    def _said(self) -> tuple[Tensor, Tensor]:
        """The scores (*B, T, L+1) of a blank, and of the next label, at the present frames and then the others."""
        order = closing(self.frames)[..., None, None]
        scores = take(wide(self.scores), order, -3)
        following = F.pad(self.targets.long(), (0, 1), value=-1)
        label = take(scores, following.clamp(min=0)[..., None, :, None], -1).squeeze(-1)
        return scores[..., self.blank], label.masked_fill((following < 0).unsqueeze(-2), -torch.inf)

    def _along(self, lattice: Tensor, t: Tensor) -> Tensor:
        """The lattice (*B, T, L+1) by its antidiagonals, (*B, T + L, L+1)."""
        return take(F.pad(lattice, (0, 0, 0, 1)), t.clamp(0, lattice.shape[-2]).expand(t.shape), -2)

    def _frames_of(self, states: Tensor) -> Tensor:
        """The frame of each label, from how many labels were said at each step."""
        u = torch.arange(self.targets.shape[-1], device=self.device)
        steps = ((states.unsqueeze(-1) <= u) & (states >= 0).unsqueeze(-1)).sum(-2) - 1  # at which it is said
        places = (steps - u).clamp(min=0, max=max(self.choices - 1, 0))
        possible = (states >= 0).any(-1, keepdim=True)
        return take(closing(self.frames), places, -1).where(possible & self.present, -1)

    def _is_structure(self, z: Tensor) -> Tensor:
        there = take(self.frames, z.clamp(0, self.choices - 1), -1) & (z >= 0) & (z < self.choices)
        ordered = (z[..., 1:] >= z[..., :-1]) | ~self.present[..., 1:]
        return (there == self.present).all(-1) & ordered.all(-1)

    def _is_apart(self, other: "RNNT") -> Tensor:
        return (self.present != other.present).any(-1) | (self.frames != other.frames).any(-1)
