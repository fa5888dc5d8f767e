"""What a machine with a memory answers to sequences of one's own."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from regard.app.data.generators.tasks import answered, ended
from regard.app.data.sequences import check_vectors
from regard.app.text.reading import raw_lines

READS = "sequences as JSON, [[0, 1, ...], ...], one a line"


class Answer(NamedTuple):
    """The vectors of bits of an answer."""

    bits: list[list[int]]
    note: str
    """What should be said of it, if anything."""


@dataclass
class Prediction:
    """How much is answered."""

    steps: int = 0
    """Vectors of an answer; if zero, as many as are shown."""


def inputs(arguments: Sequence[str], stream: BinaryIO) -> Iterator[str]:
    """The arguments, or without any the lines of standard input."""
    return iter(arguments) if arguments else filter(None, raw_lines(stream))


def prepare(model: Any, given: Any) -> Tensor:
    """A sequence, or its JSON, as bits (T, W)."""
    try:
        vectors = json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise ValueError(f"expected a sequence as JSON, [[0, 1, ...], ...], but got {given[:40]!r}") from error
    check_vectors(vectors, "a sequence", model.facts.values["shape"][0])
    return torch.tensor(vectors, dtype=torch.float)


def predict(model: Any, prepared: Sequence[Tensor], options: Prediction) -> list[Answer]:
    """The answer to each sequence."""
    return [_answer(model, bits, options) for bits in prepared]


def _answer(model: Any, bits: Tensor, options: Prediction) -> Answer:
    asked = torch.zeros(1, options.steps or len(bits), bits.shape[-1])
    given = answered(ended(bits.unsqueeze(0)), asked)
    logits = model(given.input).logits[given.asked]
    longer = model.config.data == "generated" and len(bits) > model.config.longest
    note = f"longer than the {model.config.longest} vectors of training" if longer else ""
    return Answer((logits > 0).int().tolist(), note)


def written(given: Any, prediction: Answer) -> str:
    """The bits as JSON, and the note if there is one."""
    return json.dumps(prediction.bits) + (f"\t{prediction.note}" if prediction.note else "")
