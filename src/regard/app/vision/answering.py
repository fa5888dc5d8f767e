"""What is answered about images of one's own that are too large to read, and where that was seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import regard as rg
from regard.app.data.large import Opened, view
from regard.app.text.reading import printable
from regard.images import Source
from regard.recipes.base import paths

OVERVIEW, SHOWN = 320, 25
"""Pixels of an image as it is shown, each way, and patches that are shown of it, at most."""
READS, inputs = "paths of images, one a line", paths


@dataclass
class Prediction:
    """No options."""


class Answer(NamedTuple):
    """What is answered about an image."""

    answer: str
    probability: float
    places: list[list[int]]
    """The middles of the patches that were read, (y, x) in pixels."""
    bytes: int
    """Read of the file."""


def prepare(model: Any, given: str | Path | Source) -> Source:
    """The image in a file, opened. Raises ValueError unless it has as many channels as those that were learned."""
    source = given if isinstance(given, Source) else rg.open_image(given)
    channels = model.facts.values["shape"][0]
    if source.shape[0] != channels:
        raise ValueError(f"{printable(source.name)} expected {channels} channels, but got {source.shape[0]}")
    return source


@torch.no_grad()
def predict(model: Any, prepared: Sequence[Source], options: Prediction) -> list[Answer]:
    """The answer about each image."""
    return [_answer(model, source) for source in prepared]


def _answer(model: Any, source: Source) -> Answer:
    before, classes = source.bytes, model.facts.values["classes"]
    batch: Mapping[str, Any] = {"view": view(source, model.config.view).unsqueeze(0), "image": Opened((source,))}
    output = model(batch)
    middles = (model.places[output.z[0]] + 1) / 2 * torch.tensor(source.shape[1:])
    if model.several:
        chances = output.logits[0].sigmoid()
        names, sure = [classes[n] for n in (chances > 0.5).nonzero()], torch.maximum(chances, 1 - chances).prod()
    else:
        sure, number = output.logits[0].softmax(-1).max(-1)
        names = [classes[number]]
    return Answer(" ".join(names), float(sure), middles.long().tolist(), source.bytes - before)


def written(given: Any, prediction: Answer) -> str:
    """The answer, how sure it is, and the path."""
    return f"{prediction.answer}\t{prediction.probability:.3f}\t{given}"


def overviews(batch: Mapping[str, Any], sensor: Any) -> Float[Tensor, "B C side side"]:
    """The images of a batch as they are shown, of which a sensor reads patches."""
    if "image" in batch:
        images = torch.stack([view(source, OVERVIEW) for source in batch["image"].sources])
    else:
        images = sensor.view(OVERVIEW)
    return images / images.amax().clamp(min=1e-6)


def named(label: Tensor, logits: Tensor, classes: list[str]) -> tuple[list[str], Tensor, Tensor]:
    """Names, and the numbers among them of the truths and the answers; those of several digits are their own."""
    if label.dim() == 1:
        return classes, label, logits.argmax(-1)
    sets = [" ".join(classes[n] for n, is_there in enumerate(row) if is_there) for row in (*label, *(logits > 0))]
    names = sorted(set(sets))
    truths, answers = torch.tensor([names.index(each) for each in sets]).chunk(2)
    return names, truths, answers
