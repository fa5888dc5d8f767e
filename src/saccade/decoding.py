"""Sequences of words that a model finds probable, word by word: greedily, or by beam search.

A model is a function `step(words, state) -> (log_probs, state)`: after N sequences were continued by `words` (N,), the
log-probabilities (N, V) of the next words. Its state is anything that `saccade.select` can reorder; sequences that are
finished are dropped from it, so that a step costs as much as there is left to do. Sequences of about the same length
should be decoded together, which is the caller's matter.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.attend import select

Step = Callable[[Int[Tensor, " N"], Any], tuple[Float[Tensor, "N V"], Any]]


def greedy(
    step: Step, state: Any, longest: Int[Tensor, " B"], begin: int = 1, end: int = 2
) -> list[Int[Tensor, " length"]]:
    """The most probable word, one after the other, of each of B sequences: up to `end`, which is left out, or to its
    `longest` number of words.

    >>> following = torch.tensor([[0.1, 0.0, 0.2, 0.7], [0.6, 0.0, 0.3, 0.1], [0.0] * 4, [0.4, 0.0, 0.6, 0.0]]).log()
    >>> greedy(lambda words, state: (following[words], state), (), torch.tensor([5, 2]))
    [tensor([0, 3]), tensor([0, 3])]
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
    """What a beam search knows of N sequences that go on, each as `width` beginnings of t words."""

    rows: Tensor
    """Which of the sequences that were asked for, (N,)."""
    words: Tensor
    """(N, width, t)."""
    scores: Tensor
    """The log-probability of each beginning, (N, width)."""
    finished: Tensor
    """How many continuations have ended, (N,)."""


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
    counts `end` (Wu et al. 2016, "Google's Neural Machine Translation System", section 7, with |Y|^a for its penalty).

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
    best = Best([rows[:0]] * len(rows), torch.full((len(rows),), -torch.inf, device=rows.device))
    live = Beam(rows, torch.full((len(rows), 1, 1), begin, device=rows.device), torch.zeros(len(rows), 1), rows * 0)
    live = live._replace(scores=live.scores.to(rows.device))
    while len(live.rows):
        log_probs, state = step(live.words[..., -1].flatten(), state)
        live, state = _advance(live, log_probs, state, best, longest, size, normalise, end)
    return best.words


class Best(NamedTuple):
    """The best of each sequence that has ended so far, without `begin` and `end`."""

    words: list[Tensor]
    scores: Tensor
    """(B,)."""

    def offer(self, rows: Tensor, words: Tensor, scores: Tensor, end: int) -> None:
        """Takes what is better: candidates (N, C, t) of these rows, with their scores (N, C)."""
        top, place = scores.max(-1)
        for n in (top > self.scores[rows]).nonzero().flatten().tolist():
            self.words[int(rows[n])] = _until(words[n, place[n]], end)
        self.scores[rows] = torch.maximum(self.scores[rows], top)


def _advance(
    live: Beam, log_probs: Tensor, state: Any, best: Best, longest: Tensor, size: int, normalise: float, end: int
) -> tuple[Beam, Any]:
    """The beam one word later, and the state for it; what has ended is offered to the best."""
    (count, width), vocabulary, length = live.scores.shape, log_probs.shape[-1], live.words.shape[-1]
    total = live.scores.unsqueeze(-1) + log_probs.view(count, width, vocabulary)
    scores, place = total.flatten(1).topk(min(2 * size, width * vocabulary))  # (N, C)
    parents, words = place // vocabulary, place % vocabulary
    words = torch.cat((live.words.take_along_dim(parents.unsqueeze(-1), 1), words.unsqueeze(-1)), -1)  # (N, C, t + 1)
    last = (longest[live.rows] <= length).unsqueeze(-1)
    ended = (words[..., -1] == end) & (scores > -torch.inf)
    over = (ended | last) & (torch.arange(scores.shape[1], device=scores.device) < size)
    best.offer(live.rows, words[..., 1:], (scores / length**normalise).masked_fill(~over, -torch.inf), end)
    finished = live.finished + (over & ended).sum(-1)
    scores, kept = scores.masked_fill(ended, -torch.inf).topk(min(size, scores.shape[1]))
    going = (finished < size) & ~last.squeeze(-1) & (scores[:, 0] > -torch.inf)
    from_rows = (torch.arange(count, device=scores.device).unsqueeze(-1) * width + parents.gather(1, kept))[going]
    words = words.take_along_dim(kept.unsqueeze(-1), 1)
    return Beam(live.rows[going], words[going], scores[going], finished[going]), select(state, from_rows.flatten())
