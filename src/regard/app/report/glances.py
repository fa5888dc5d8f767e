"""How a model learned where to look: its weights on one validation example after each epoch, kept with the run.

They are what a recipe's `glance(model, batch)` gives of a batch of one example, as a `Matrix`; None where there is
nothing to see.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from regard.app.report.matrix import Matrix
from regard.app.training.errors import Failure, reason
from regard.app.training.run import write
from regard.recipes.base import Recipe

Glance = dict[str, Any]
Kept = TypeVar("Kept")


@torch.no_grad()
def glances(recipe: Recipe, model: nn.Module, split: Any, epoch: int, device: torch.device) -> list[Glance]:
    """Where the model looks on the first example of a split, as learning.json has it; nothing if there is none."""
    batch = split.batch(torch.tensor([0]), None)
    found = recipe.glance(model, {name: each.to(device) for name, each in batch.items()})
    return [] if found is None else [{"epoch": epoch, **_plain(found)}]


def _plain(matrix: Matrix) -> Glance:
    weights = [[round(each, 4) for each in row] for row in matrix.weights.tolist()]
    return {"source": list(matrix.source), "target": list(matrix.target), "weights": weights}


def write_learning(run: Path, found: list[Glance]) -> None:
    """Writes the file, if there is anything to write."""
    if found:
        write(run / "learning.json", json.dumps(found, ensure_ascii=False).encode())


def read_learning(run: Path) -> dict[int, Matrix]:
    """Where a model looked after each epoch; nothing of a run that does not say so. Raises Failure if it is damaged.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp())
    >>> write_learning(run, [{"epoch": 1, "source": ["die", "Katze"], "target": ["cat"], "weights": [[0.25, 0.75]]}])
    >>> read_learning(run)[1].looked
    ['“cat” looked at “Katze” 75 %, “die” 25 %.']
    """
    file = run / "learning.json"
    if not file.exists():
        return {}
    try:
        return {each["epoch"]: _matrix(each) for each in json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Failure(f"{file} cannot be read: {reason(error)}.") from error


def _matrix(glance: Glance) -> Matrix:
    return Matrix(glance["source"], glance["target"], torch.tensor(glance["weights"]))


def few(epochs: Mapping[int, Kept], count: int = 8) -> dict[int, Kept]:
    """Some of the epochs, as far apart as each other, the first and the last among them.

    >>> list(few(dict.fromkeys(range(1, 11)), count=4))
    [1, 4, 7, 10]
    """
    known = list(epochs)
    places = torch.linspace(0, len(known) - 1, min(count, len(known))).round().long().tolist()
    return {known[place]: epochs[known[place]] for place in places}
