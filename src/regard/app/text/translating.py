"""A trained translator at work: from a run alone, without the data that it was trained on."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from regard.app.data import Pairs
from regard.app.report import looking
from regard.app.report.report import Report, write_report
from regard.app.text import decoding
from regard.app.text.vocabulary import END
from regard.app.training import run as runs
from regard.app.training.errors import Failure
from regard.app.training.weights import filled
from regard.recipes.base import first_paragraph

SUBWORDS = 10_000
"""Subwords of the sentences that are translated together."""


def restored(run: Path) -> Any:
    """The model of a run of the recipe translate, with its best weights and its own vocabulary, in evaluation mode.

    Raises Failure if it is no such run, or damaged, and ValueError if its vocabulary is, or needs the extra `text`.
    """
    recipe, config = runs.read_config(run)
    if recipe.name != "translate":
        raise Failure(f"{run} is a run of the recipe {recipe.name}, which does not translate.")
    weights = runs.read_weights(run)
    return filled(recipe.Model(config, recipe.known(config, weights)), weights, runs.files(run)[1])


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


def look(run: Path, folder: Path, text: str) -> list[Path]:
    """Writes how a run translates a text and where each word looked, as a picture and as a page; returns both.

    Raises Failure and ValueError as `restored` does.
    """
    recipe, _ = runs.read_config(run)
    model = restored(run)
    seen = looking.look(recipe, model, Pairs([text], [""], model.vocabulary), torch.tensor([0]))
    page = Report(
        title=f"Where {run.name} looked",
        question=first_paragraph(recipe.about),
        data="a sentence of the command line",
        pictures={"Where it looked": seen},
        command=f"regard look {run} --text {shlex.quote(text)}",
        config=runs.files(run)[0].read_text(encoding="utf-8"),
    )
    (drawn,) = looking.draw(folder / "text", seen, run.name)
    return [drawn, write_report(folder / "text" / "report.html", page)]


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
