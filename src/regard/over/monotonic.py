"""Monotonic alignments: an `over` whose queries only go forward, and how a decoder reads with it online."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.checks import check_part
from regard.masks import checked
from regard.over.mappings import Mask, Over, Scores, masked
from regard.positions import Alignment, Chunkwise, Positions
from regard.positions.base import INFINITY, read_places
from regard.positions.chunkwise import soften
from regard.protocol import Step
from regard.scores import compare, prepare, scaled_dot


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


def attend_online(
    query: Float[Tensor, "*B Q Dq"],
    keys: Any,
    values: Any,
    *,
    score: Any = scaled_dot,
    over: monotonic | None = None,
    start: Int[Tensor, "*B"] | int = 0,
    places: Int[Tensor, "*B"] | int | None = None,
) -> tuple[Float[Tensor, "*B Q V"], Int[Tensor, "*B Q"]]:
    """What `attend(..., over=monotonic(...), read=online)` reads, and where, while it looks at no more than it needs:
    it compares the query with the keys from the last stop up to the next, and reads the values of one chunk (Raffel et
    al. 2017, algorithm 1; Chiu and Raffel 2018, algorithm 1). Q queries take at most K + Q comparisons in all, and one
    for each place of a chunk.

    Keys and values are tensors, (*B, K, D), or anything with `.read(z)`, which maps places (*B, N) to what lies
    there, (*B, N, D). `start` is where to go on, `z[..., -1]` of the call before; `places` is how many
    places each row has, of tensors all. Raises TypeError for a score that needs more than query and key, for
    another over, and for a reader of keys without `places`, and ValueError for no queries.

    >>> keys = torch.tensor([[-1.0], [2.0], [-3.0], [1.0]])
    >>> context, z = attend_online(torch.tensor([[1.0], [-1.0], [-1.0]]), keys, keys)
    >>> z, context.T
    (tensor([1, 2, 2]), tensor([[ 2., -3., -3.]]))
    """
    over = monotonic() if over is None else over
    if not isinstance(over, monotonic):
        raise TypeError(f"attend_online expected over to be monotonic, but got {getattr(over, '__name__', over)}.")
    for part in (score, over.score):
        if hasattr(part, "at"):
            raise TypeError(f"attend_online expected a score of query and keys alone, but got {type(part).__name__}.")
    if query.dim() < 2 or query.shape[-2] == 0:
        raise ValueError(f"query expected the shape (*B, Q, Dq) with at least one query, but got {tuple(query.shape)}.")
    if places is None:
        if not isinstance(keys, Tensor):
            raise TypeError("attend_online expected places, how many there are, where keys are read lazily.")
        places = keys.shape[-2]
    batch = query.shape[:-2]
    place, places = (torch.as_tensor(each, device=query.device).expand(batch) for each in (start, places))
    place, stops, contexts = place.where(place >= 0, places), [], []
    for one in query.split(1, -2):
        place = _next_stop(one, keys, score, over.bias, place, places)
        stops.append(place.where(place < places, -1).unsqueeze(-1))
        contexts.append(_read_chunk(one, keys, values, score, over, stops[-1]))
    return torch.cat(contexts, -2), torch.cat(stops, -1)


def _next_stop(query: Tensor, keys: Any, score: Any, bias: Any, place: Tensor, places: Tensor) -> Tensor:
    """The first place, from `place` on, that one rather stops at than passes; the number of places where none is."""
    walking = place < places
    while walking.any():
        here = read_places(keys, place.where(walking, -1).unsqueeze(-1))  # (*B, 1, D)
        walking = walking & (score(query, here) + bias < 0).view_as(place)
        place = place + walking.int()
        walking = walking & (place < places)
    return place


def _read_chunk(query: Tensor, keys: Any, values: Any, score: Any, over: monotonic, stop: Tensor) -> Tensor:
    """What a stop (*B, 1) reads, (*B, 1, V)."""
    if over.chunk == 1:
        return read_places(values, stop)
    chunk = stop - torch.arange(over.chunk or max(1, int(stop.max()) + 1 if stop.numel() else 1), device=stop.device)
    chunk = chunk.where(chunk >= 0, -1)
    keys = read_places(keys, chunk)
    scores = score(query, keys) if over.score is None else over.score(query, prepare(score, keys))
    return soften(masked(scores, chunk.unsqueeze(-2) >= 0)) @ read_places(values, chunk)
