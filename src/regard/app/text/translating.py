"""The translations of any number of texts by a trained translator."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from regard.app.text import decoding
from regard.app.text.vocabulary import END

SUBWORDS = 10_000
"""Subwords of the sentences that are translated together."""


@torch.no_grad()
def translated(model: Any, texts: Sequence[str], beam: int = 5, normalise: float = 1.0) -> list[str]:
    """The translations of texts, in their order, by beam search, or greedily where the beam is 1; nothing of nothing.

    Texts of about the same length are translated together. Raises ValueError unless the beam is at least one.
    """
    found, numbers = [""] * len(texts), model.vocabulary.encode(texts)
    for rows in _together([len(each) for each in numbers]):
        source = pad_sequence([torch.tensor([*numbers[n], END]) for n in rows], batch_first=True)
        state, most = model.begin(source), model.longest(source)
        if beam == 1:
            words = decoding.greedy(model.step, state, most)
        else:
            words = decoding.beam(model.step, state, most, beam, normalise)
        for n, each in zip(rows, words, strict=True):
            found[n] = model.vocabulary.decode(each.tolist())
    return found


def _together(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Which texts to translate together: the longest first, as many as have `SUBWORDS` in all; none without any.

    >>> list(_together([3, 0, 9000, 5]))
    [[2], [3, 0]]
    """
    rows = sorted((n for n, length in enumerate(lengths) if length), key=lambda n: -lengths[n])
    while rows:
        count = max(1, min(64, SUBWORDS // lengths[rows[0]]))
        yield rows[:count]
        rows = rows[count:]
