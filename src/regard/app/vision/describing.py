"""Pictures of one's own described: predictions of the recipe caption, and its pictures of where words looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import regard as rg
from regard.app import flags
from regard.app.data.folder import picture_for
from regard.app.report.image_figures import word_by_word
from regard.app.report.report import Picture
from regard.app.report.text_figures import png
from regard.app.text.captioning import ended, references
from regard.recipes.base import paths

READS, inputs = "paths of pictures, one a line", paths


@dataclass
class Prediction:
    """How captions are looked for."""

    beam: int = 5
    """Beginnings that are kept at each word; 1 is greedy."""

    def __post_init__(self) -> None:
        flags.at_least(1, self, "beam")


def prepare(model: Any, given: str | Path | Tensor) -> Tensor:
    """The picture in a file as one (C, Y, X) such as the model knows; a picture stays as it is."""
    return given if isinstance(given, Tensor) else picture_for(model.facts, given)


def predict(model: Any, prepared: Sequence[Tensor], options: Prediction) -> list[str]:
    """The caption of each picture."""
    state = model.begin({"picture": torch.stack(list(prepared))})
    return [model.text(words) for words in model.teller.written(state, options.beam)]


def written(given: Any, prediction: str) -> str:
    """The caption, and the path."""
    return f"{prediction}\t{given}"


def look(model: Any, batch: dict[str, Tensor]) -> list[Picture]:
    """Each picture once for every word of its caption, with where that word looked."""
    state = model.begin(batch)
    written = model.teller.written(state, model.config.beam)
    looked = model.teller(ended(written), state).looked
    return [_picture(model, batch, n, words, looked) for n, words in enumerate(written)]


def _picture(model: Any, batch: dict[str, Tensor], n: int, words: Tensor, looked: rg.Attended) -> Picture:
    text, truths = model.text(words), references(batch)[n]
    known = ", as in the data" if text in truths else f", where the data have “{'” and “'.join(truths)}”"
    weights = looked.weights[n, : len(words)].unflatten(-1, model.places.grid)  # (T, rows, columns)
    figure = word_by_word(
        batch["picture"][n], text.split(), weights, None if looked.z is None else looked.z[n, : len(words)]
    )
    return Picture(text, f"Said: “{text}”{known}.", png(figure))
