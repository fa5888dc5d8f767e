"""What the scripts in experiments/ share: runs that are trained and tested once, are resumed, and may be divided among
several calls; and the file results/NAME.json, in which what is finished stays when the runs are gone.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from regard.app import results
from regard.app.training.errors import Failure, Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.files import write
from regard.app.training.loop import train
from regard.app.training.metrics import Row


def parser(name: str, about: str, data: str, figure: bool = False) -> argparse.ArgumentParser:
    """The flags of every experiment that trains: where `data` lie, where its runs are kept, and how it is printed."""
    flags = results.parser(name, about, figure)
    flags.add_argument("--data", type=Path, metavar="DIR", help=f"{data}; without it, what is finished is printed")
    flags.add_argument("--runs", type=Path, default=Path("runs", name), metavar="DIR", help="where the runs are kept")
    flags.add_argument("--precision", default="bf16-mixed", help="of training, such as 32-true")
    return flags


def fit(options: argparse.Namespace, threads: int = 1) -> Fit:
    """How every run is trained: on the CPU, by so many threads."""
    return Fit(accelerator="cpu", threads=threads, precision=options.precision, progress="none")


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
    recipe: ModuleType, config: Any, run: Path, fit: Fit, test: Callable[[Row], dict[str, Any]], known: bool
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
            write(clock, str(before + time.monotonic() - start).encode())
    result = {**test(best), "seconds": round(float(clock.read_text()), 1), "machine": results.machine()}
    write(run / "result.json", json.dumps(result).encode())
    return result


def finished(folder: Path) -> list[dict[str, Any]]:
    """What the runs of a folder say that are finished."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*/result.json"))]


def kept(file: Path, key: str = "rows") -> list[dict[str, Any]]:
    """What a file of results holds under a key; nothing if there is none."""
    return json.loads(file.read_text()).get(key, []) if file.exists() else []
