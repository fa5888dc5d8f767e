"""What is said in sounds of one's own: hooks of `regard.recipes.base` for what writes down speech."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from regard.app import flags
from regard.app.data.spoken import batched
from regard.app.speech.decoding import beam, greedy
from regard.app.speech.sounds import Sound, read_sound, resampled
from regard.app.speech.strings import FIRST

READS = "paths of sound files"
TOGETHER = 4_000_000
"""Samples of sounds that are heard together, at most, with what fills them up."""


class Answer(NamedTuple):
    """What is said."""

    answer: str
    note: str
    """What should be said of the sound, if anything."""


@dataclass
class Prediction:
    """How transcripts are looked for."""

    beam: int = 1
    """Beginnings that are kept at each symbol; 1 is greedy."""

    def __post_init__(self) -> None:
        flags.at_least(1, self, "beam")


def prepare(model: Any, given: str | Path) -> Sound:
    """The sound of a file at the rate of the model, and the note of what it was before."""
    return resampled(read_sound(given), model.rate)


def predict(model: Any, prepared: Sequence[Sound], options: Prediction) -> list[Answer]:
    """What is said in each sound."""
    found: dict[int, Answer] = {}
    for rows in together([len(sound.samples) for sound in prepared], TOGETHER):
        batch = batched([prepared[n].samples for n in rows], [torch.zeros(0, dtype=torch.long)] * len(rows))
        spelled = greedy(model, batch) if options.beam == 1 else beam(model, batch, options.beam)
        found |= {n: Answer(text(model, row.tolist()), prepared[n].note) for n, row in zip(rows, spelled, strict=True)}
    return [found[n] for n in range(len(prepared))]


def text(model: Any, symbols: Sequence[int]) -> str:
    """Symbols as they are written."""
    return model.between.join(model.symbols[n - FIRST] for n in symbols if n >= FIRST)


def together(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """The numbers of the sounds in groups about as long as each other, each of at most so many samples once all are as
    long as the longest, or one alone.

    >>> list(together([5, 1, 4, 30, 2], most=10))
    [[1, 4], [2, 0], [3]]
    """
    group: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        if group and (len(group) + 1) * lengths[n] > most:
            yield group
            group = []
        group.append(n)
    if group:
        yield group


def written(given: Any, prediction: Answer) -> str:
    """The text alone, and the note if there is one."""
    return prediction.answer + (f"\t{prediction.note}" if prediction.note else "")
