"""What the benchmarks share that train models: runs that are tested once, resumed, and divided among several calls."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import harness

from regard.app.training import run as runs
from regard.app.training.errors import Failure, Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.loop import train


def asked(jobs: Iterable[Any], options: argparse.Namespace) -> Iterator[Any]:
    """The jobs, dataclasses, whose fields are what the options of these names say, where they are given."""
    for job in jobs:
        if all(getattr(options, name, None) in (None, value) for name, value in asdict(job).items()):
            yield job


def do_all(jobs: Iterable[Any], do: Callable[[Any], None], write: Callable[[], object]) -> None:
    """Does one job after the other, and writes the results after each. One that fails, or that another process is at,
    is named and left; an interruption ends it all."""
    for job in jobs:
        try:
            do(job)
        except Interrupted as interrupted:
            raise SystemExit(str(interrupted)) from None
        except Failure as failure:
            print(f"{job}: {failure}", flush=True)
        write()


def once(
    recipe: ModuleType, config: Any, run: Path, fit: Fit, test: Callable[[runs.Row], dict[str, Any]], known: bool
) -> dict[str, Any] | None:
    """Trains a run and keeps in its result.json what the test says, given what is known of the best epoch; with the
    seconds of training in all its sittings. None if that is done already, or is `known` and not begun again."""
    if (run / "result.json").exists() or (known and not run.exists()):
        return None
    start, clock = time.monotonic(), run / "seconds"
    before = float(clock.read_text()) if clock.exists() else 0.0
    try:
        best = train(recipe, config, run, fit)
    finally:
        if run.is_dir():
            runs.write(clock, str(before + time.monotonic() - start).encode())
    result = {**test(best), "seconds": round(float(clock.read_text()), 1), "machine": harness.machine()}
    runs.write(run / "result.json", json.dumps(result).encode())
    return result


def results(folder: Path) -> list[dict[str, Any]]:
    """What the runs of a folder say that are finished."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*/result.json"))]


def mean_and_spread(values: Sequence[float] | None, digits: int = 2) -> str:
    """The mean of some seeds and, of more than one, its standard deviation; nothing of none."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
