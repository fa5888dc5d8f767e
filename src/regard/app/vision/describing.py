"""Pictures of one's own described: predictions of the recipe caption, its pictures of where words looked, and whether
it mattered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

import regard as rg
from regard.app import flags
from regard.app.data.folder import picture_for
from regard.app.explaining import Explained
from regard.app.report.image_figures import word_by_word
from regard.app.report.report import Picture
from regard.app.report.text_figures import png
from regard.app.text.captioning import alike, ended, references
from regard.app.text.comprehension import read_by
from regard.app.text.translating import alone
from regard.app.vision.places import boxes_of, overlap
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


def explained(model: Any, batch: dict[str, Tensor]) -> Explained | None:
    """Each word that is written, by the places of the picture that are kept, the others being dark; where it looked;
    where there are boxes, what it names, and then of words alone that name it rightly; and of a hard read the
    certificate that a word was told from no other place. Nothing of models that cannot choose where to look."""
    teller, state = model.teller, model.begin(batch)
    if teller.attention.score is alike:
        return None
    captions = ended(teller.written(state, model.config.beam))
    boxes = _boxes(batch, captions) if "boxes" in batch else None
    n, t = (captions > 0 if boxes is None else ~boxes[..., 0].isnan()).nonzero(as_tuple=True)
    words, state = captions[n], rg.select(state, n)  # a row for each word
    target, rows = alone(words, t), torch.arange(len(n), device=n.device)
    told = teller(words, state)
    hard, read = told.looked.z is not None, read_by(told.looked)[rows, t]  # (N, K)

    def logits(values: Tensor) -> Tensor:
        found = teller(words, state._replace(memory=replace(state.memory, values=values)))
        return teller.score(teller.features(found, found.looked.context)[rows, t])

    def reading(weights: Tensor) -> Tensor:
        context = (weights.unsqueeze(1) @ state.memory.values).expand(-1, words.shape[1], -1)
        return teller.score(teller.features(told, context)[rows, t]).softmax(-1)

    def answer(kept: Tensor) -> Tensor:
        found = teller(words, model.begin(_shown(model, batch, n, kept)))
        return (-teller.cost(found, found.looked.context, target).sum(-1)).exp()

    return Explained(
        answer,
        told.looked.weights[rows, t],
        torch.ones_like(read).bool(),
        None if boxes is None else _named(model, batch, boxes[n, t]),
        (lambda: rg.faithfulness.certificate(logits, state.memory.values, read > 0)) if hard else None,
        lambda: rg.faithfulness.permutation(reading, read),
        gradual=True,
    )


def _named(model: Any, batch: dict[str, Tensor], boxes: Tensor) -> Tensor:
    """Which places of the grid have a part of boxes (N, 4) of the batch's pictures, (N, K)."""
    places = boxes_of(model.places.grid, batch["picture"].shape[-2:]).to(boxes)
    return overlap(places.expand(len(boxes), -1, -1), boxes.unsqueeze(1).expand(-1, len(places), -1))


def _boxes(batch: dict[str, Tensor], captions: Tensor) -> Tensor:
    """The edges (B, T, 4) of what each word of captions names, NaN where it names nothing, or wrongly."""
    longer, other = captions.shape[1], batch["caption"].shape[1]
    boxes = pad(batch["boxes"], (0, 0, 0, max(0, longer - other)), value=torch.nan)[:, :longer]
    right = captions == pad(batch["caption"], (0, max(0, longer - other)))[:, :longer]
    return boxes.masked_fill(~right.unsqueeze(-1), torch.nan)


def _shown(model: Any, batch: dict[str, Tensor], n: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """Pictures n of a batch of which places (N, K) are kept; their features, where these are not learned."""
    if "features" in batch:
        return {"features": batch["features"][n] * kept.unsqueeze(-1)}
    whole = batch["picture"][n]
    return {"picture": whole * interpolate(kept.to(whole).unflatten(-1, (1, *model.places.grid)), whole.shape[-2:])}
