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
    (Ghodsi et al. 2020, "RNN-Transducer with Stateless Prediction Network")."""

    def __init__(self, symbols: int, size: int):
        super().__init__()
        self.hearing = nn.Linear(size, size)
        self.vectors = nn.Embedding(symbols, size)
        self.telling = nn.Linear(size, symbols)

    def forward(self, states: Float[Tensor, "*N D"], words: Int[Tensor, "*M"]) -> Float[Tensor, "... symbols"]:
        """The log-probabilities of what places tell after these symbols: the first is none."""
        return self.telling((self.hearing(states) + self.vectors(words)).tanh()).log_softmax(-1)

    def alignment(
        self, states: Float[Tensor, "B K D"], count: Int[Tensor, " B"], target: Int[Tensor, "B L"]
    ) -> rg.RNNT:
        """The places at which the symbols of the targets are said, in sounds of so many places."""
        told = self(states.unsqueeze(2), pad(target, (1, 0), value=BEGIN).unsqueeze(1))  # (B, K, L + 1, symbols)
        labels = target.where(target > PADDING, -1)
        return rg.rnnt(labels)(told, rg.padding(count, states.shape[1]).squeeze(1))

    def greedy(self, states: Float[Tensor, "B K D"], count: Int[Tensor, " B"]) -> list[Tensor]:
        """The most probable symbol after symbol of each sound, at place after place."""
        words, said = torch.full_like(count, BEGIN), [[] for _ in count]
        for place, state in enumerate(states.unbind(1)):
            going = place < count
            for _ in range(AT_ONCE):
                told = self(state, words).argmax(-1)
                going = going & (told != PADDING)
                words = told.where(going, words)
                for row in going.nonzero().flatten().tolist():
                    said[row].append(int(words[row]))
        return [torch.tensor(row, dtype=torch.long) for row in said]

    def best(self, states: Float[Tensor, "K D"], size: int) -> tuple[int, ...]:
        """The best text by a search over beginnings of texts, each by all its alignments together; so many are kept
        at each place (Graves 2012, section 2.5). Time O(K size symbols)."""
        live: dict[tuple[int, ...], float] = {(): 0.0}
        for state in states:
            found: dict[tuple[int, ...], float] = {}
            for said in range(AT_ONCE + 1):
                words = torch.tensor([text[-1] if text else BEGIN for text in live])
                ahead: dict[tuple[int, ...], float] = {}
                for (text, value), row in zip(live.items(), self(state, words).tolist(), strict=True):
                    found[text] = float(np.logaddexp(found.get(text, -np.inf), value + row[PADDING]))
                    ahead |= {(*text, n): value + row[n] for n in range(1, len(row)) if said < AT_ONCE}
                live = _largest(ahead, size)
            live = _largest(found, size)
        return next(iter(live))


def _largest(values: dict[tuple[int, ...], float], size: int) -> dict[tuple[int, ...], float]:
    return dict(sorted(values.items(), key=lambda each: -each[1])[:size])
