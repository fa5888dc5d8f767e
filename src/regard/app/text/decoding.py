"""Sequences of words that a model finds probable, word by word: greedily, or by beam search.

A model is a function `step(words, state) -> (log_probs, state)`: after N sequences were continued by `words` (N,), the
log-probabilities (N, V) of the next words. Its state is anything that `regard.select` can reorder; sequences that are
finished are dropped from it, so that a step costs as much as there is left to do. Sequences of about the same length
should be decoded together, which is the caller's matter.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.memory import select

Step = Callable[[Int[Tensor, " N"], Any], tuple[Float[Tensor, "N V"], Any]]


def greedy(
    step: Step, state: Any, longest: Int[Tensor, " B"], begin: int = 1, end: int = 2
) -> list[Int[Tensor, " length"]]:
    """The most probable word, one after the other, of each of B sequences: up to `end`, which is left out, or to its
    `longest` number of words.

    >>> following = torch.tensor([[0.1, 0.0, 0.2, 0.7], [0.6, 0.0, 0.3, 0.1], [0.0] * 4, [0.4, 0.0, 0.6, 0.0]]).log()
    >>> greedy(lambda words, state: (following[words], state), (), torch.tensor([5, 1]))
    [tensor([0, 3]), tensor([0])]
    """
    rows = torch.arange(len(longest), device=longest.device)
    words, found = torch.full_like(rows, begin), torch.full((len(rows), int(longest.max())), end, device=rows.device)
    for place in range(found.shape[1]):
        log_probs, state = step(words, state)
        words = log_probs.argmax(-1)
        found[rows, place] = words
        going = (words != end) & (longest[rows] > place + 1)
        if not going.all():
            rows, words, state = rows[going], words[going], select(state, going)
        if not len(rows):
            break
    return [_until(sequence, end) for sequence in found]


def _until(words: Int[Tensor, " T"], end: int) -> Int[Tensor, " length"]:
    """The words before the first `end`."""
    ended = (words == end).nonzero()
    return words[: int(ended[0])] if len(ended) else words


class Beam(NamedTuple):
    """N sequences that go on, each with some beginnings of t words."""

    rows: Int[Tensor, " N"]
    """Which of the sequences that were asked for."""
    words: Int[Tensor, "N width t"]
    scores: Float[Tensor, "N width"]
    """The log-probability of each beginning; -inf for one that is none."""
    finished: Int[Tensor, " N"]
    """How many continuations have ended."""


def beam(
    step: Step,
    state: Any,
    longest: Int[Tensor, " B"],
    size: int = 5,
    normalise: float = 1.0,
    begin: int = 1,
    end: int = 2,
) -> list[Int[Tensor, " length"]]:
    """Of each of B sequences the best that a beam search finds, by log p(words) / length^normalise, where the length
    counts `end` (as Wu et al. 2016, "Google's Neural Machine Translation System", section 7, with a simpler penalty).

    At every word the `size` most probable beginnings are kept; those that end are set aside, and the search is over
    when as many have ended, or at the `longest` number of words, where all are taken as they are. A size of one is
    `greedy`. Raises ValueError unless the size is at least one.

    >>> following = torch.tensor([[0.1, 0.0, 0.2, 0.7], [0.6, 0.0, 0.3, 0.1], [0.0] * 4, [0.4, 0.0, 0.6, 0.0]]).log()
    >>> beam(lambda words, state: (following[words], state), (), torch.tensor([5]), size=3, normalise=0.0)
    [tensor([], dtype=torch.int64)]
    """
    if size < 1:
        raise ValueError(f"beam expected a size of at least 1, but got {size}.")
    rows = torch.arange(len(longest), device=longest.device)
    best = Best([rows[:0]] * len(rows), torch.full_like(rows, -torch.inf, dtype=torch.float64))
    live = Beam(rows, torch.full_like(rows, begin).view(-1, 1, 1), torch.zeros_like(rows).view(-1, 1), 0 * rows)
    while len(live.rows):
        log_probs, state = step(live.words[..., -1].flatten(), state)
        candidates, parents = _continued(live, log_probs, 2 * size)
        length = candidates.words.shape[-1] - 1
        last, ended = longest[live.rows] <= length, candidates.words[..., -1] == end
        taken = (ended | last.unsqueeze(-1)) & (torch.arange(ended.shape[1], device=rows.device) < size)
        scores = (candidates.scores / length**normalise).masked_fill(~taken, -torch.inf)
        best.offer(live.rows, candidates.words[..., 1:], scores, end)
        live, kept = _kept(candidates, ended, taken, size)
        going = (live.finished < size) & ~last & (live.scores[:, 0] > -torch.inf)
        live, state = select(live, going), select(state, parents.gather(1, kept)[going].flatten())
    return best.words


class Best(NamedTuple):
    """The best of each of B sequences that has ended so far, without `begin` and `end`."""

    words: list[Tensor]
    scores: Float[Tensor, " B"]

    def offer(
        self, rows: Int[Tensor, " N"], words: Int[Tensor, "N C t"], scores: Float[Tensor, "N C"], end: int
    ) -> None:
        """Takes what is better."""
        top, place = scores.max(-1)
        for n in (top > self.scores[rows]).nonzero().flatten().tolist():
            self.words[int(rows[n])] = _until(words[n, place[n]], end)
        self.scores[rows] = torch.maximum(self.scores[rows], top.double())


def _continued(live: Beam, log_probs: Tensor, count: int) -> tuple[Beam, Tensor]:
    """The most probable beginnings that are one word longer, (N, count), and which rows of the state they continue."""
    rows, width = live.scores.shape
    total = live.scores.unsqueeze(-1) + log_probs.unflatten(0, (rows, width))  # (N, width, V)
    scores, place = total.flatten(1).topk(min(count, total[0].numel()))
    parents, words = place // log_probs.shape[-1], place % log_probs.shape[-1]
    words = torch.cat((live.words.take_along_dim(parents.unsqueeze(-1), 1), words.unsqueeze(-1)), -1)
    parents = parents + width * torch.arange(rows, device=parents.device).unsqueeze(-1)
    return Beam(live.rows, words, scores, live.finished), parents


def _kept(candidates: Beam, ended: Tensor, taken: Tensor, size: int) -> tuple[Beam, Tensor]:
    """The best candidates that have not ended, and which they are."""
    scores, kept = candidates.scores.masked_fill(ended, -torch.inf).topk(min(size, ended.shape[1]))
    words = candidates.words.take_along_dim(kept.unsqueeze(-1), 1)
    finished = candidates.finished + (ended & taken & (candidates.scores > -torch.inf)).sum(-1)
    return Beam(candidates.rows, words, scores, finished), kept
