"""Where training begins: what a run's folder holds, and what can be made of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from regard.app.training.batches import mix, seed_all
from regard.app.training.checkpoints import LAST, PREVIOUS, State, newest_checkpoint, read_checkpoint
from regard.app.training.config import Fields, claim, files, schedules
from regard.app.training.errors import Failure
from regard.app.training.metrics import Row, best_row, finished, read_metrics
from regard.app.training.progress import say
from regard.app.training.run import OpenedRun
from regard.app.training.weights import filled, read_weights
from regard.recipes.base import Metric, Recipe


class Beginning(NamedTuple):
    """Where training begins."""

    fields: Fields
    """Of config.yaml."""
    checkpoint: Path | None = None
    """What it goes on from; None if it begins anew."""
    finished: list[Row] | None = None
    """The rows of a run that is finished."""


def begin(recipe: Recipe, config: Any, run: Path, start: str | Path | None = None) -> Beginning:
    """Claims the folder of a run, and says where its training begins.

    It begins anew, as it once did, if there is no checkpoint, or if the best weights are lost and the checkpoint does
    not hold them. Raises Failure if the folder is another run's, or what it holds is damaged.
    """
    fields = claim(run, recipe, config, start)
    weights = files(run)[1].exists()
    rows, damage = _rows(run)
    if weights and not damage and finished(rows, config, recipe.METRIC):
        return Beginning(fields, finished=rows)
    found = newest_checkpoint(run, fields)
    if found and (weights or _holds_best(found.state, recipe.METRIC)):
        if damage:
            say(f"warning: {damage} It is written anew, as {found.path.name} has its rows.")
        return Beginning(fields, found.path)
    if damage:
        raise damage
    if found or weights or rows:
        say(f"warning: {run} has lost {'its best weights' if found or not weights else LAST}: it is trained anew.")
        for name in (LAST, PREVIOUS, "metrics.csv", "model.safetensors"):
            (run / name).unlink(missing_ok=True)
    return Beginning(fields)


def _rows(run: Path) -> tuple[list[Row], Failure | None]:
    """The rows of metrics.csv, or what is wrong with it."""
    try:
        return read_metrics(run), None
    except Failure as damage:
        return [], damage


def _holds_best(state: State, metric: Metric) -> bool:
    """Whether the weights of a checkpoint are the best so far, or none could be."""
    rows = state["rows"]
    return not rows or (state["place"] == 0 and best_row(rows, metric) is rows[-1])


def opened_at(beginning: Beginning, recipe: Recipe, config: Any, run: Path, start: str | Path | None) -> OpenedRun:
    """The run as it begins: a model as its seed makes it, or of the weights that it starts from or goes on with."""
    weights, path = None, beginning.checkpoint or (files(Path(start))[1] if start else None)
    if beginning.checkpoint:
        state = read_checkpoint(beginning.checkpoint)["model"]
        weights = {name.removeprefix("model."): value for name, value in state.items()}
    elif start:
        weights = read_weights(Path(start))
    splits = recipe.data(config) if weights is None else recipe.fitted(config, weights)
    seed_all(mix(config.seed, "model"), torch.device("cpu"))
    model = recipe.Model(replace(config, epochs=schedules(beginning.fields)[0]), splits)
    model = filled(model, weights, path) if weights is not None and path else model
    return OpenedRun(recipe, config, recipe.kept(config, splits, run), model)
