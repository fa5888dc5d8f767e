"""Texts that go on, word by word, as a trained language model tells them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from regard.app import flags
from regard.app.data.running import beginning
from regard.app.text.reading import stream_lines
from regard.app.text.vocabulary import UNKNOWN

READS = "beginnings of texts, one a line"


@dataclass
class Prediction:
    """How a text goes on."""

    words: int = 20
    """How many words are added."""
    temperature: float = 0.8
    """What scores are divided by before a word is drawn; 0 takes the likeliest."""

    def __post_init__(self) -> None:
        flags.at_least(1, self, "words")
        flags.at_least(0, self, "temperature")


def inputs(arguments: Sequence[str], stream: BinaryIO) -> Iterator[str]:
    """The arguments, or without any the lines of standard input."""
    return iter(arguments) if arguments else stream_lines(stream)


def prepare(model: Any, given: str) -> list[int]:
    """The numbers of the words of a beginning. Raises ValueError where it has none."""
    return model.vocabulary.encode([" ".join(beginning(given, model.vocabulary))])[0]


def predict(model: Any, prepared: Sequence[list[int]], options: Prediction) -> list[str]:
    """How each beginning goes on."""
    return [gone_on(model, numbers, options) for numbers in prepared]


@torch.no_grad()
def gone_on(model: Any, numbers: list[int], options: Prediction) -> str:
    """A text that goes on, word by word; words that are not known are never said."""
    state, said, new, known = model.nothing(1), list(numbers), numbers, []
    for _ in range(options.words):
        output = model(torch.tensor([new]), state)
        known.append(output.known[0])
        last = torch.arange(len(said)) == len(said) - 1
        scores = model.says(torch.cat(known), torch.tensor(said), last)[0]
        scores[: UNKNOWN + 1] = -torch.inf
        chosen = scores.argmax() if options.temperature == 0 else _drawn(scores / options.temperature)
        state, new = output.state, [int(chosen)]
        said += new
    return model.vocabulary.decode(said)


def _drawn(scores: Tensor) -> Tensor:
    return torch.multinomial(scores.softmax(-1), 1)
