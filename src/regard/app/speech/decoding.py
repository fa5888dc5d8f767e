"""What a model that hears writes down: greedily, by beam search, or online."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app.speech.networks import BEHIND
from regard.app.text import decoding
from regard.app.text.vocabulary import END


class OnlineInUse:
    """The mean in training, and in use what is read online, by a decoder that knows no later query."""

    def at(self, step: Any) -> Any:
        return rg.mean if step.training else rg.online

    def __repr__(self) -> str:
        return "online in use"


def ending(logits: Tensor, out: Any) -> Tensor:
    """The scores (N, symbols) of the next symbol: the end alone where nothing was left to be read."""
    if out is None or out.z is None:
        return logits
    over = (out.z < 0) & (torch.arange(logits.shape[-1], device=logits.device) != END)
    return logits.masked_fill(over, -torch.inf)


def positions(looks: Sequence[Any]) -> Any:
    """The distribution over where all symbols looked."""
    first, *later = (look.positions for look in looks)
    return first.then(*later)


def costs(logits: Tensor, after: Tensor) -> Tensor:
    """The cross-entropy of symbols (B, T) by their scores (*S, B, T, symbols), zero where there is none: (*S, B, T)."""
    labels = after.expand(logits.shape[:-1]).flatten()
    found = cross_entropy(logits.flatten(0, -2), labels, ignore_index=0, reduction="none")
    return found.view(logits.shape[:-1])


def greedy(model: Any, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """The most probable symbol after symbol of each sound."""
    states, count = model(batch)
    if model.transducer is not None:
        return model.transducer.greedy(states, model.aligning(states), count)
    if model.speller is None:
        return [said(row[:n]) for row, n in zip(model.aligned(states).argmax(-1), count.tolist(), strict=True)]
    return decoding.greedy(model.step, model.speller.begin(states, count), count + BEHIND)


def said(path: Tensor) -> Tensor:
    """What a path through the places says: runs made one, and none left out.

    >>> said(torch.tensor([0, 3, 3, 0, 3, 4]))
    tensor([3, 3, 4])
    """
    path = path.unique_consecutive()
    return path[path > 0]


def beam(model: Any, batch: Mapping[str, Tensor], size: int) -> list[Tensor]:
    """The best that a beam search finds for each sound."""
    states, count = model(batch)
    if model.transducer is not None:
        heard = zip(states, model.aligning(states), count.tolist(), strict=True)
        best = (model.transducer.best(row[:n], alone[:n], size) for row, alone, n in heard)
        return [torch.tensor(text, dtype=torch.long) for text in best]
    if model.speller is None:
        rows = zip(model.aligned(states), count.tolist(), strict=True)
        return [torch.tensor(prefixes(row[:n], size), dtype=torch.long) for row, n in rows]
    return decoding.beam(model.step, model.speller.begin(states, count), count + BEHIND, size)


def prefixes(log_probs: Float[Tensor, "K symbols"], size: int) -> tuple[int, ...]:
    """The best text by a search over beginnings of texts, each by all its alignments together (Graves and Jaitly 2014,
    "Towards End-To-End Speech Recognition with Recurrent Neural Networks", algorithm 1). Time O(K size symbols).

    Here both places tell none with .6, together .36, and three alignments say the symbol, together .64.

    >>> prefixes(torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log(), size=2)
    (1,)
    """
    never = float("-inf")
    live = {(): (0.0, never)}  # the log-probability of those that end in none, and in a symbol
    for row in log_probs.tolist():
        found: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(text: tuple[int, ...], none: float, symbol: float, found: Any = found) -> None:
            before = found.get(text, (never, never))
            found[text] = float(np.logaddexp(before[0], none)), float(np.logaddexp(before[1], symbol))

        for text, (none, symbol) in live.items():
            whole = float(np.logaddexp(none, symbol))
            add(text, whole + row[0], symbol + row[text[-1]] if text else never)
            for n in range(1, len(row)):
                add((*text, n), never, (none if text and text[-1] == n else whole) + row[n])
        best = sorted(found.items(), key=lambda each: -np.logaddexp(*each[1]))
        live = dict(best[:size])
    return next(iter(live))
