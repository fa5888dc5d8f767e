"""A monotonic alignment that reads softly round where it stopped: the last places up to there."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from regard.positions.algorithms.categorical import unblock
from regard.positions.algorithms.recurrence import NEVER, expected_alignment, log_recurrence
from regard.positions.alignment import Alignment
from regard.positions.base import INFINITY, exported, read_places, take


@exported
@dataclass(eq=False, repr=False)
class Chunkwise(Alignment):
    """A monotonic alignment each of whose stops reads the `chunk` places up to it, softly, by a softmax over scores.

    beta_{i,j} = sum_{k=j}^{j+w-1} alpha_{i,k} exp(u_{i,j}) / sum_{l=k-w+1}^{k} exp(u_{i,l}) (Chiu and Raffel 2018,
    equation 18); without a limit, chunk None, the stop reads all places up to it (Arivazhagan et al. 2019, "Monotonic
    infinite lookback attention").

    The event is where the queries stop, as in `Alignment`; `indicator(z)` is what they read given that, and `mean` its
    expectation. It is computed without a softmax over each window: where the stop's draw may lie, in its own block of
    w places or in the block before, is decided first, and the place then by walking through that block, back from the
    stop or on to the stop's block, as an alignment does. So nothing underflows, whatever the scores are.

    Shapes: scores and within (*B, Q, K), start (*B, K); batch_shape (*B), event_shape (Q,). `mean` takes O(Q K log w)
    beyond an `Alignment`'s, `gather` O(Q w), and reads no other places. Raises ValueError unless chunk is at least 1.

    >>> positions = Chunkwise(torch.zeros(1, 3), within=torch.zeros(1, 3), chunk=2)
    >>> positions.stops.mean, positions.mean
    (tensor([[0.5000, 0.2500, 0.1250]]), tensor([[0.6250, 0.1875, 0.0625]]))
    """

    within: Any = None
    """The scores by which the places of a chunk are weighted; by default those of the stops."""
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"Chunkwise expected a chunk of at least 1 place, but got {self.chunk}.")
        if self.within is None:
            self.within = self.scores
        super().__post_init__()

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        """What each query is expected to read of each place."""
        if self.scores.shape[-1] == 0:
            return self.stops.mean
        stopping, lacking = self._stopping, -self.scores.shape[-1] % self._width
        within = self.within.to(stopping.dtype).clamp(min=NEVER)
        within = F.pad(within - within.detach().amax(-1, keepdim=True), (0, lacking), value=NEVER)
        blocks = (each.unflatten(-1, (-1, self._width)) for each in (F.pad(stopping, (0, lacking)), within))
        mean = _read_softly(*blocks).flatten(-2)[..., : self.scores.shape[-1]]
        return mean.masked_fill(self.within == -INFINITY, 0).to(self.scores.dtype)

    def indicator(self, z: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB Q K"]:
        """The weights by which the stops read: zero beyond their chunks."""
        behind = z.unsqueeze(-1) - torch.arange(self.scores.shape[-1], device=z.device)
        inside = (behind >= 0) & (behind < self._width)
        return soften(torch.where(inside, self.within, -INFINITY))

    def gather(self, values: Any, z: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB Q V"]:
        """What the stops read: the places of their chunks, weighted."""
        places = z.unsqueeze(-1) - torch.arange(self._width, device=z.device)  # (*S, *B, Q, w)
        scores = take(self.within, places.clamp(min=0), -1).masked_fill(places < 0, -INFINITY)
        places = places.masked_fill(scores == -INFINITY, -1)
        read = read_places(values, places.flatten(-2)).unflatten(-2, places.shape[-2:])
        return (soften(scores).unsqueeze(-2) @ read).squeeze(-2)

    def then(self, *later: "Chunkwise") -> Alignment:
        within = torch.cat([each.within for each in (self, *later)], -2)
        return replace(super().then(*later), within=within)

    @property
    def _width(self) -> int:
        places = self.scores.shape[-1]
        return places if self.chunk is None else min(self.chunk, places)


def soften(scores: Tensor) -> Tensor:
    """The softmax, zero for rows of -inf alone."""
    scores, blocked = unblock(scores)
    return scores.softmax(-1).masked_fill(blocked, 0)


def _read_softly(stopping: Tensor, scores: Tensor) -> Tensor:
    """What is read where each place is stopped at with these chances and reads the w places up to it; all tensors are
    (*B, Q, blocks, w)."""
    before, after = _totals(scores), _totals(scores.flip(-1)).flip(-1)  # of the block, up to and from each place
    back, on = (
        scores - F.pad(before[..., :-1], (1, 0), value=NEVER),
        scores - F.pad(after[..., 1:], (0, 1), value=NEVER),
    )
    if scores.shape[-2] == 1:
        return _walked(back.flip(-1), stopping.flip(-1)).flip(-1)
    earlier = F.pad(after[..., :-1, 1:], (0, 1, 1, 0), value=NEVER)  # of the block before, as far as the window goes
    here = before - earlier
    own = _walked(back.flip(-1), (stopping * here.sigmoid()).flip(-1)).flip(-1)
    left = F.pad((stopping * (-here).sigmoid())[..., 1:, :-1], (1, 0, 0, 1))  # at the first place of their windows
    return own + _walked(on, left)


def _totals(scores: Tensor) -> Tensor:
    """log sum_{l <= k} exp(s_l)."""
    return log_recurrence(torch.zeros_like(scores), scores)


def _walked(scores: Tensor, start: Tensor) -> Tensor:
    """Where one stops who walks on from `start`."""
    stop, go = scores.sigmoid().unsqueeze(-2), (-scores).sigmoid().unsqueeze(-2)
    return expected_alignment(stop, go, start).squeeze(-2)
