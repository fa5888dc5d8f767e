"""metrics.csv: what training and validation came to, a row an epoch."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from regard.app.training.errors import Failure, reason
from regard.app.training.files import read, write
from regard.recipes.base import Metric

Row = dict[str, int | float]


def read_metrics(run: str | Path) -> list[Row]:
    """The rows of metrics.csv, one an epoch; none if no epoch has ended yet, or of weights without a folder.

    Raises Failure if they are damaged.
    """
    path = Path(run) / "metrics.csv"
    try:
        table = csv.DictReader(io.StringIO(read(path).decode("ascii"), newline=""), strict=True)
        rows = [{name: _number(value) for name, value in row.items() if value != ""} for row in table]
        if list(table.fieldnames or [])[:1] not in ([], ["epoch"]):
            raise ValueError("its first column should be epoch")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise Failure(f"{path} is damaged: {reason(error)}.") from error
    if [row.get("epoch") for row in rows] != list(range(1, len(rows) + 1)):
        raise Failure(f"{path} is damaged: it should have a row for each epoch, from 1 on.")
    return rows


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


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
