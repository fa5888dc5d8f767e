"""Monotonic alignments: an `over` whose queries only go forward, and how a decoder reads with it online."""

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.checks import check_part
from regard.masks import checked
from regard.over.mappings import Mask, Over, Scores, masked
from regard.positions import Alignment, Chunkwise, OneHot, Positions
from regard.positions.base import INFINITY, read_places, take
from regard.positions.chunkwise import soften
from regard.protocol import State, Step, at, carries, carry
from regard.scores import Additive, Bilinear, Content, Cosine, compare, dot, prepare, scaled_dot


class monotonic(nn.Module):
    """Alignments in which each query walks on from the place where the one before it stopped, and stops at a place
    with the probability sigmoid(score + bias) (Raffel et al. 2017, "Online and linear-time attention by enforcing
    monotonic alignments", equations 11 to 14).

    `chunk` 1 reads the place alone, w the w places up to it (Chiu and Raffel 2018, "Monotonic chunkwise attention"),
    None all of them (Arivazhagan et al. 2019, "Monotonic infinite lookback attention"): softly, by the same scores, or
    by those of `score`, which compares the query with the keys as the first score prepared them. In training Gaussian
    noise of the standard deviation `noise` is added to the scores, which teaches a model to be sure, so that it reads
    the same in training by `mean` as later `online`; 1 is the paper's. `bias` is a number or an `nn.Parameter`: below
    zero, it makes alignments begin long; the paper's is between -1 and -4.

    The state holds where the last query stopped, (*B, K): for `mean` its distribution, for other reads the place.
    Time O(Q K). Raises ValueError unless chunk is at least 1 and noise at least 0, and TypeError for
    what is no score.

    >>> monotonic()(torch.zeros(2, 3)).mean
    tensor([[0.5000, 0.2500, 0.1250],
            [0.2500, 0.2500, 0.1875]])
    """

    def __init__(self, chunk: int | None = 1, noise: float = 0.0, bias: float | nn.Parameter = 0.0, score: Any = None):
        super().__init__()
        if chunk is not None and chunk < 1:
            raise ValueError(f"monotonic expected a chunk of at least 1 place, but got {chunk}.")
        if not noise >= 0:
            raise ValueError(f"monotonic expected noise of at least 0, but got {noise}.")
        if score is not None:
            check_part("score", score)
        self.chunk = chunk
        self.noise = noise
        self.bias = bias
        self.score = score

    def at(self, step: Step) -> Over:
        return partial(self._positions, step)

    def forward(self, scores: Scores, mask: Mask = None) -> Alignment:
        """The positions of the first queries, without noise."""
        return self._aligned(scores, scores, mask, None)

    def next(self, carried: Tensor | None, positions: Positions) -> Float[Tensor, "*B K"]:
        return positions.last  # pyright: ignore[reportAttributeAccessIssue]

    def _positions(self, step: Step, scores: Scores, mask: Mask) -> Alignment:
        within = scores if self.score is None else compare(self.score, step.query, prepare(self.score, step.keys))
        noisy = scores + self.noise * torch.randn_like(scores) if self.noise and step.training else scores
        return self._aligned(noisy, within, mask, step.carried)

    def _aligned(self, scores: Tensor, within: Tensor, mask: Mask, start: Tensor | None) -> Alignment:
        start = None if start is None else start.expand(*scores.shape[:-2], -1)
        scores = masked(scores + self.bias, checked(mask, scores.shape))
        if self.chunk == 1:
            return Alignment(scores, start)
        return Chunkwise(scores, start, masked(within, scores != -INFINITY), self.chunk)

    def extra_repr(self) -> str:
        bias = tuple(self.bias.shape) if isinstance(self.bias, Tensor) else self.bias
        return f"chunk={self.chunk}, noise={self.noise:g}, bias={bias}"


class Online(NamedTuple):
    """What was read online."""

    context: Float[Tensor, "*B Q V"]
    z: Int[Tensor, "*B Q"]
    """Where each query stopped; -1 where it did nowhere."""
    state: State
    """To go on from: what the score carries, and the place at which the last query stopped, (*B,)."""


def attend_online(
    query: Float[Tensor, "*B Q Dq"],
    keys: Any,
    values: Any,
    *,
    score: Any = scaled_dot,
    over: monotonic | None = None,
    state: State | None = None,
    places: Int[Tensor, "*B"] | int | None = None,
) -> Online:
    """What `attend(..., over=monotonic(...), read=online)` reads, and where, while it looks at no more than it needs:
    it compares the query with the keys from the last stop up to the next, and reads the values of one chunk (Raffel et
    al. 2017, algorithm 1; Chiu and Raffel 2018, algorithm 1). Q queries take at most K + Q comparisons in all, and one
    for each place of a chunk. A score that may be more than one of query and key, such as `LocationAware` or a
    function of one's own, is formed of all the keys that have been read, O(K) for each of these comparisons.

    Keys and values are tensors, (*B, K, D), or anything with `.read(z)`, which maps places (*B, N) to what lies
    there, (*B, N, D). `state` is that of the call before, to go on from; `places` is how many places each row has, of
    tensors all. Raises TypeError for an over that is not monotonic, or weighs its chunks by a score of more than query
    and key, and for a reader of keys without `places`, and ValueError for no queries.

    >>> keys = torch.tensor([[-1.0], [2.0], [-3.0], [1.0]])
    >>> context, z, _ = attend_online(torch.tensor([[1.0], [-1.0], [-1.0]]), keys, keys)
    >>> z, context.T
    (tensor([1, 2, 2]), tensor([[ 2., -3., -3.]]))
    """
    over = monotonic() if over is None else over
    if not isinstance(over, monotonic):
        raise TypeError(f"attend_online expected over to be monotonic, but got {getattr(over, '__name__', over)}.")
    if hasattr(over.score, "at"):
        raise TypeError(
            f"attend_online expected an over whose own score is of query and keys alone, but got "
            f"{type(over.score).__name__}."
        )
    if query.dim() < 2 or query.shape[-2] == 0:
        raise ValueError(f"query expected the shape (*B, Q, Dq) with at least one query, but got {tuple(query.shape)}.")
    if places is None:
        if not isinstance(keys, Tensor):
            raise TypeError("attend_online expected places, how many there are, where keys are read lazily.")
        places = keys.shape[-2]
    batch, (carried, start) = query.shape[:-2], state or State(over=0)
    place, places = (torch.as_tensor(each, device=query.device).expand(batch) for each in (start, places))
    place, stops, contexts = place.where(place >= 0, places), [], []
    known = _asked(score, keys, places)
    within = known if over.score is None else _asked(over.score, _Prepared(known), places)
    for n in range(query.shape[-2]):
        known.begin(query, n, carried)
        place = _next_stop(known, over.bias, place, places)
        stops.append(place.where(place < places, -1).unsqueeze(-1))
        within.begin(query, n, carried)
        chunk, weights = _chunk(within, over.chunk, stops[-1])
        contexts.append(weights.to(query.dtype) @ read_places(values, chunk))
        carried = known.end(carried, chunk, weights)
    return Online(torch.cat(contexts, -2), torch.cat(stops, -1), State(carried, stops[-1].squeeze(-1)))


def _next_stop(known: Any, bias: Any, place: Tensor, places: Tensor) -> Tensor:
    """The first place, from `place` on, that one rather stops at than passes; the number of places where none is."""
    walking = place < places
    while walking.any():
        here = place.where(walking, -1).unsqueeze(-1)  # (*B, 1)
        walking = walking & (known.scores(here) + bias < 0).view_as(place)
        place = place + walking.int()
        walking = walking & (place < places)
    return place


def _chunk(within: Any, size: int | None, stop: Tensor) -> tuple[Tensor, Tensor]:
    """The places that a stop (*B, 1) reads, (*B, w), -1 for none, and by which weights, (*B, 1, w)."""
    if size == 1:
        return stop, (stop >= 0).unsqueeze(-2)
    chunk = stop - torch.arange(size or max(1, int(stop.max()) + 1 if stop.numel() else 1), device=stop.device)
    chunk = chunk.where((chunk >= 0) & (stop >= 0), -1)
    return chunk, soften(masked(within.scores(chunk), chunk.unsqueeze(-2) >= 0))


def _asked(score: Any, keys: Any, places: Tensor) -> Any:
    """A score that can be asked at some places: by their keys alone, where it is known to need no more."""
    alone = score is dot or score is scaled_dot or type(score) in (Additive, Bilinear, Content, Cosine)
    return _Alone(score, keys, places) if alone else _Whole(score, keys, places)


class _Alone:
    """A score of query and key alone, asked at some places."""

    def __init__(self, score: Any, keys: Any, places: Tensor):
        self.score, self.keys, self.places = score, keys, places

    def begin(self, query: Tensor, n: int, carried: Any) -> None:
        """Goes on to the n-th query."""
        self.query = query[..., n : n + 1, :]

    def prepared(self, z: Tensor) -> Tensor:
        """The keys of places z (*B, N), as the score prepares them: (*B, N, P)."""
        return prepare(self.score, read_places(self.keys, z))

    def scores(self, z: Tensor) -> Tensor:
        """The scores at places z (*B, N), (*B, 1, N)."""
        return compare(self.score, self.query, self.prepared(z))

    def end(self, carried: Any, chunk: Tensor, weights: Tensor) -> Any:
        """What the score carries after a look."""
        return None


class _Whole(_Alone):
    """A score that is formed of all places, whose keys are zero where they have not been read."""

    read: Any = None

    def begin(self, query: Tensor, n: int, carried: Any) -> None:
        one = query[..., n : n + 1, :]
        self.query, self.row = (one, 0) if carries(self.score) else (query, n)
        self.carried, self.now = carried, None

    def scores(self, z: Tensor) -> Tensor:
        self._take(z)
        if self.now is None:
            self.now = at(self.score, Step(self.query, self.read, None, self.carried, training=False))
        scores = compare(self.now, self.query, self.read)[..., self.row : self.row + 1, :]
        return take(scores, z.clamp(min=0).unsqueeze(-2), -1)

    def end(self, carried: Any, chunk: Tensor, weights: Tensor) -> Any:
        seen = weights.to(self.query.dtype) @ self._here(chunk).mT.to(self.query.dtype)  # (*B, 1, K)
        return carry(self.score, carried, OneHot(weights=seen))

    def _take(self, z: Tensor) -> None:
        """Reads the keys of places z (*B, N) beside those that are read."""
        new, here = self.prepared(z), self._here(z)
        read = here.to(new.dtype) @ new  # (*B, K, P)
        self.read = read if self.read is None else torch.where(here.any(-1, keepdim=True), read, self.read)

    def _here(self, z: Tensor) -> Tensor:
        """Which place each of z (*B, N) is, (*B, K, N)."""
        count = int(self.places.max()) if self.places.numel() else 0
        return z.unsqueeze(-2) == torch.arange(count, device=z.device).unsqueeze(-1)


class _Prepared(NamedTuple):
    """The keys of a score as it prepares them, to be read."""

    known: _Alone

    def read(self, z: Tensor) -> Tensor:
        return self.known.prepared(z)
