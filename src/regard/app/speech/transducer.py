"""The transducer: symbols said at places, by what is heard there and what was said last."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

import regard as rg
from regard.app.text.vocabulary import BEGIN, PADDING

AT_ONCE = 4
"""Symbols that are said at one place, at most, in use."""


class Transducer(nn.Module):
    """What a place tells after a symbol: the next symbol, or none, and then it is the next place's turn (Graves 2012,
    "Sequence Transduction with Recurrent Neural Networks"). Of what was said before, the last symbol alone is known
    (Ghodsi et al. 2020, "RNN-Transducer with Stateless Prediction Network").

    It goes out from the scores that a place has `alone`, by CTC: where each symbol has one place, and not some of
    several, two of the same after each other are told apart."""

    def __init__(self, symbols: int, size: int):
        super().__init__()
        self.hearing = nn.Linear(size, size)
        self.vectors = nn.Embedding(symbols, size)
        self.telling = nn.Linear(size, symbols)

    def forward(
        self, states: Float[Tensor, "*N D"], alone: Float[Tensor, "*N symbols"], words: Int[Tensor, "*M"]
    ) -> Float[Tensor, "... symbols"]:
        """The log-probabilities of what places tell after these symbols: the first is none."""
        return (alone + self.telling((self.hearing(states) + self.vectors(words)).tanh())).log_softmax(-1)

    def alignment(
        self,
        states: Float[Tensor, "B K D"],
        alone: Float[Tensor, "B K symbols"],
        count: Int[Tensor, " B"],
        target: Int[Tensor, "B L"],
    ) -> rg.RNNT:
        """The places at which the symbols of the targets are said, in sounds of so many places."""
        words = pad(target, (1, 0), value=BEGIN).unsqueeze(1)
        told = self(states.unsqueeze(2), alone.unsqueeze(2), words)  # (B, K, L + 1, symbols)
        labels = target.where(target > PADDING, -1)
        return rg.rnnt(labels)(told, rg.padding(count, states.shape[1]).squeeze(1))

    def cost(self, states: Tensor, alone: Tensor, count: Tensor, target: Tensor) -> Tensor:
        """The mean cost of a symbol of the targets, by all their alignments."""
        return -self.alignment(states, alone, count, target).log_z.sum() / (target > PADDING).sum()

    def greedy(
        self, states: Float[Tensor, "B K D"], alone: Float[Tensor, "B K symbols"], count: Int[Tensor, " B"]
    ) -> list[Tensor]:
        """The most probable symbol after symbol of each sound, at place after place."""
        words, said = torch.full_like(count, BEGIN), [[] for _ in count]
        for place, heard in enumerate(zip(states.unbind(1), alone.unbind(1), strict=True)):
            going = place < count
            for _ in range(AT_ONCE):
                told = self(*heard, words).argmax(-1)
                going = going & (told != PADDING)
                words = told.where(going, words)
                for row in going.nonzero().flatten().tolist():
                    said[row].append(int(words[row]))
        return [torch.tensor(row, dtype=torch.long) for row in said]

    def best(self, states: Float[Tensor, "K D"], alone: Float[Tensor, "K symbols"], size: int) -> tuple[int, ...]:
        """The best text by a search over beginnings of texts, each by all its alignments together; so many are kept
        at each place (Graves 2012, section 2.5). Time O(K size symbols)."""
        live: dict[tuple[int, ...], float] = {(): 0.0}
        for heard in zip(states, alone, strict=True):
            found: dict[tuple[int, ...], float] = {}
            for said in range(AT_ONCE + 1):
                words = torch.tensor([text[-1] if text else BEGIN for text in live])
                ahead: dict[tuple[int, ...], float] = {}
                told = self(*(each.expand(len(words), -1) for each in heard), words)
                for (text, value), row in zip(live.items(), told.tolist(), strict=True):
                    found[text] = float(np.logaddexp(found.get(text, -np.inf), value + row[PADDING]))
                    ahead |= {(*text, n): value + row[n] for n in range(1, len(row)) if said < AT_ONCE}
                live = _largest(ahead, size)
            live = _largest(found, size)
        return next(iter(live))


def _largest(values: dict[tuple[int, ...], float], size: int) -> dict[tuple[int, ...], float]:
    return dict(sorted(values.items(), key=lambda each: -each[1])[:size])
