"""The folder of a run, runs/RECIPE/NAME: what it holds, and how it is written so that nothing is ever lost.

    config.yaml         the recipe's name and its configuration, as run
    metrics.csv         one row an epoch: epoch, step, learning_rate, train_*, valid_*
    learning.json       where the model looked on one validation example after each epoch, of recipes with a `glance`
    model.safetensors   the best weights and buffers by the recipe's METRIC
    last.ckpt           everything that training needs to go on, bit by bit as if it had never stopped

Nothing that is read here can run code. File locks and the fsync of a folder are POSIX's.
"""

import csv
import fcntl
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from regard.app.training.errors import Failure, reason
from regard.recipes import own_recipes
from regard.recipes.base import Metric, Recipe, is_path, open_recipe

Row = dict[str, int | float]


def write(path: Path, data: bytes | memoryview) -> None:
    """Writes a file whole or not at all: a draft beside it is brought to the disk, then takes its name.

    Raises Failure if that does not work (a full disk, a folder that may not be written); the file is then as it was.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write(folder / "config.yaml", b"seed: 0")
    >>> [(file.name, file.read_text(encoding="utf-8")) for file in folder.iterdir()]
    [('config.yaml', 'seed: 0')]
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise Failure(f"{path} could not be written ({error.strerror}); what was saved before is intact.") from error


def _sync(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keeps other processes out of a run, which it creates if need be; the lock of a process that died counts no more.

    Raises Failure if another process holds it, or if there can be no such folder.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp()) / "glimpse" / "first"
    >>> with locked(run):
    ...     write_metrics(run, [])
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / ".lock", "a+")  # noqa: SIM115 - it is held open below
    except OSError as error:
        raise Failure(f"{run} cannot be used as the folder of a run ({error.strerror}).") from error
    with file:
        _lock(run, file)
        yield


def _lock(run: Path, file: io.TextIOWrapper) -> None:
    """Takes the lock, which the system takes back when the process ends, however it ends; the number is for people."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise Failure(f"{run} is being trained by another process ({file.read() or 'just started'}).") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    with suppress(OSError):  # a full disk matters only once there is something to save
        file.flush()


def claim(run: Path, recipe: Recipe, config: Any) -> None:
    """Writes config.yaml, unless there is a checkpoint: that must be of this very recipe and configuration.

    Raises Failure naming the fields that differ, if there are any.
    """
    text = yaml.safe_dump({"recipe": recipe.source, **asdict(config)}, sort_keys=False, allow_unicode=True)
    if not (run / "last.ckpt").exists():
        write(run / "config.yaml", text.encode())
    elif different := _differences(_read_fields(run), yaml.safe_load(text)):
        raise Failure(f"{run} exists already, and with another configuration ({different}): give another name.")


def _differences(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """The fields that differ, in words."""
    none = "nothing"
    fields = [key for key in {**found, **asked} if found.get(key, none) != asked.get(key, none)]
    return ", ".join(f"{key} is {found.get(key, none)} there and {asked.get(key, none)} here" for key in fields)


def files(run: Path) -> tuple[Path, Path]:
    """(configuration, weights): of a run's folder, or of a weights file that has its configuration beside it.

    >>> [file.name for file in files(Path("weights/ram-28-6.safetensors"))]
    ['ram-28-6.yaml', 'ram-28-6.safetensors']
    """
    if run.suffix == ".safetensors":
        return run.with_suffix(".yaml"), run
    return run / "config.yaml", run / "model.safetensors"


def _read_fields(run: Path) -> dict[str, Any]:
    """The contents of config.yaml."""
    config, _ = files(run)
    try:
        fields = yaml.safe_load(config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Failure(f"{run} is not a run: it has no {config.name}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Failure(f"{config} cannot be read: {reason(error)}.") from error
    if not isinstance(fields, dict) or "recipe" not in fields:
        raise Failure(f"{config} should name a recipe and the fields of its configuration, but does not.")
    return fields


def read_config(run: Path, recipe: Recipe | None = None) -> tuple[Recipe, Any]:
    """The recipe of a run, regard's own of that name unless given, and the configuration that it was run with.

    Raises Failure if there is no such run or recipe, if it is of a user's recipe that is not given, or if the fields do
    not fit.
    """
    fields = _read_fields(run)
    name = str(fields.pop("recipe"))
    recipe = recipe or _find_recipe(run, name)
    if Path(name).stem != recipe.name:
        raise Failure(f"{run} is a run of the recipe {name!r}, not of {recipe.name}.")
    return recipe, _build_config(run, recipe.Config, fields)


def _find_recipe(run: Path, name: str) -> Recipe:
    """The recipe of that name that regard has, and no other: what a folder says may not choose what code is run."""
    if is_path(name):
        raise Failure(
            f"{run} is of a recipe in a file, {name!r}, and what a folder says is never run: say yourself which file "
            f"it is, by --recipe FILE."
        )
    if name not in own_recipes():
        raise Failure(f"{files(run)[0]} names the recipe {name!r}, which regard does not have.")
    return open_recipe(name)


def _build_config(run: Path, config: type, fields: dict[str, Any]) -> Any:
    """The dataclass with these fields, each checked and converted by its type."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config)
    try:
        return config(**vars(parser.parse_object(fields)))
    except (ArgumentError, TypeError, ValueError) as error:
        raise Failure(f"{files(run)[0]} does not fit its recipe: {reason(error)}.") from error


def write_metrics(run: Path, rows: list[Row]) -> None:
    """Writes metrics.csv, in full and at once: rows that are appended could be lost, or be there twice after a resume.

    Floats are written with all their digits, so that they are read again as they were.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp())
    >>> write_metrics(run, [{"epoch": 1, "valid_error": 0.1 + 0.2}])
    >>> read_metrics(run)
    [{'epoch': 1, 'valid_error': 0.30000000000000004}]
    """
    text = io.StringIO()
    table = csv.DictWriter(text, list({name: None for row in rows for name in row}), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write(run / "metrics.csv", text.getvalue().encode())


def read_metrics(run: str | Path) -> list[Row]:
    """The rows of metrics.csv, one an epoch; none if no epoch has ended yet."""
    path = Path(run) / "metrics.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{name: _number(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


def best_row(rows: list[Row], metric: Metric) -> Row | None:
    """The row with the best value of the metric; the first of equals.

    None if it is never a number. Raises Failure if there is no such column.

    >>> rows = [{"epoch": 1, "valid_error": 0.5}, {"epoch": 2, "valid_error": 0.25}]
    >>> best_row(rows, Metric("valid_error", "min", "share of wrong answers"))
    {'epoch': 2, 'valid_error': 0.25}
    """
    name = metric.name
    if rows and name not in rows[-1]:
        raise Failure(f"the recipe's METRIC is {name}, but the metrics are {', '.join(rows[-1])}.")
    known = [row for row in rows if not math.isnan(row[name])]
    return {"min": min, "max": max}[metric.better](known, key=lambda row: row[name], default=None)


def finished(rows: list[Row], config: Any, metric: Metric) -> bool:
    """Whether training is: all epochs are there, or as many since the best one as a `patience` allows.

    >>> from types import SimpleNamespace as Config
    >>> rows = [{"epoch": 1, "valid_bleu": 30.0}, {"epoch": 2, "valid_bleu": 29.0}]
    >>> metric = Metric("valid_bleu", "max", "distance to 100 of BLEU", perfect=100.0)
    >>> [finished(rows, Config(epochs=8, patience=patience), metric) for patience in (1, 2)]
    [True, False]
    """
    best, patience = best_row(rows, metric), getattr(config, "patience", config.epochs)
    return len(rows) >= config.epochs or (best is not None and len(rows) - best["epoch"] >= patience)


def load(run: str | Path, recipe: Recipe | None = None) -> tuple[Recipe, Any, Any]:
    """(recipe, config, model) of a run: the model with its best weights, in evaluation mode, on the CPU.

    Raises Failure if there is no such run, if it has no weights yet, or if they do not fit the model.
    """
    recipe, config = read_config(Path(run), recipe)
    weights = read_weights(Path(run))
    return recipe, config, filled(recipe.Model(config, recipe.known(config, weights)), weights, Path(run))


def open_run(run: Path, recipe: Recipe | None = None) -> tuple[Recipe, Any, Any, Any]:
    """(recipe, config, splits, model): `load`, with the data that the model was built for."""
    recipe, config = read_config(run, recipe)
    weights, splits = read_weights(run), recipe.data(config)
    return recipe, config, splits, filled(recipe.Model(config, splits), weights, run)


def read_weights(run: Path) -> dict[str, Any]:
    """The tensors of a run by their names. Raises Failure if there are none yet, or they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _, weights = files(run)
    try:
        return load_file(weights)
    except FileNotFoundError as error:
        raise Failure(f"{run} has no {weights.name} yet: its first epoch has not ended.") from error
    except (SafetensorError, OSError) as error:
        raise Failure(f"{weights} cannot be loaded: {reason(error)}.") from error


def filled(model: Any, weights: dict[str, Any], run: Path) -> Any:
    """The model with the weights of a run, in evaluation mode. Raises Failure if they do not fit."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise Failure(f"{files(run)[1]} cannot be loaded: {reason(error)}.") from error
    return model.eval()
