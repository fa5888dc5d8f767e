"""The folder of a run, runs/RECIPE/NAME: what it holds, and how it is read and claimed so that nothing is ever lost.

    config.yaml         the recipe's name and its configuration, as run; `from`, the weights it started from, and
                        `extended`, the epochs at which it was to end before --epochs was raised, if so
    metrics.csv         one row an epoch: epoch, step, learning_rate, train_*, valid_*
    learning.json       where the model looked on one validation example after each epoch, of recipes with a `glance`
    model.safetensors   the weights and buffers of the best epoch, by the recipe's METRIC, and a digest of them
    last.ckpt           everything that training needs to go on, bit by bit as if it had never stopped
    previous.ckpt       the checkpoint before that, in case the last is damaged

Nothing that is read here can run code, and no link in the folder is followed. File locks and the fsync of a folder are
POSIX's.
"""

import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from regard.app.training.config import files, read_config
from regard.app.training.errors import Failure
from regard.app.training.files import make_folder, open_to_append, write
from regard.app.training.metrics import Row, best_row, finished, read_metrics, write_metrics
from regard.app.training.weights import filled, read_weights
from regard.recipes.base import Recipe

__all__ = [
    "OpenedRun",
    "Row",
    "best_row",
    "files",
    "finished",
    "locked",
    "open_run",
    "read_config",
    "read_metrics",
    "read_weights",
    "write",
    "write_metrics",
]


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keeps other processes out of a run, which it creates if need be; the lock of a process that died counts no more.

    Raises Failure if another process holds it, or if there can be no such folder.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp()) / "glimpse" / "first"
    >>> with locked(run):
    ...     write_metrics(run, [])
    """
    make_folder(run)
    try:
        file = open(open_to_append(run / ".lock"), "a+")  # noqa: SIM115 - it is held open below
    except OSError as error:
        raise Failure(f"{run / '.lock'} cannot be opened ({error.strerror}).") from error
    with file:
        _lock(run, file)
        yield


def _lock(run: Path, file: io.TextIOWrapper) -> None:
    """Takes the lock, which the system takes back when the process ends, however it ends; the number is for people."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise Failure(f"{run} is being trained by another process ({file.read(20) or 'just started'}).") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    with suppress(OSError):  # a full disk matters only once there is something to save
        file.flush()


class OpenedRun(NamedTuple):
    """A run, ready to be evaluated or looked at."""

    recipe: Recipe
    config: Any
    splits: Any
    model: Any
    """With its best weights, in evaluation mode, on the CPU."""


def open_run(run: str | Path, data: str | None = None, recipe: Recipe | ModuleType | None = None) -> OpenedRun:
    """A run with its splits, or with those of other data, of which the test split counts: nothing of the run's own
    data is needed then.

    Raises Failure if there is no such run, if it has no weights yet, or if they do not fit the model.
    """
    run = Path(run)
    recipe, config = read_config(run, recipe)
    weights = read_weights(run)
    model = filled(recipe.Model(config, recipe.known(config, weights)), weights, files(run)[1])
    if data:
        config = replace(config, data=data)
        return OpenedRun(recipe, config, recipe.tested(config, weights), model)
    return OpenedRun(recipe, config, recipe.kept(config, recipe.fitted(config, weights), files(run)[0].parent), model)
