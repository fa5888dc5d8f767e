"""What the scripts in experiments/ share: runs that are trained and tested once, are resumed, and may be divided among
several calls; and the file results/NAME.json, in which what is finished stays when the runs are gone.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from regard.app import results
from regard.app.training.errors import Failure, Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.files import write
from regard.app.training.loop import train
from regard.app.training.metrics import Row, read_metrics


def parser(name: str, about: str, data: str, figure: bool = False) -> argparse.ArgumentParser:
    """The flags of every experiment that trains: where `data` lie, where its runs are kept, and how it is printed."""
    flags = results.parser(name, about, figure)
    flags.add_argument("--data", type=Path, metavar="DIR", help=f"{data}; without it, what is finished is printed")
    flags.add_argument("--runs", type=Path, default=Path("runs", name), metavar="DIR", help="where the runs are kept")
    flags.add_argument("--precision", default="32-true", help="of training, such as bf16-mixed")
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
    recipe: ModuleType,
    config: Any,
    run: Path,
    fit: Fit,
    test: Callable[[Row], dict[str, Any]],
    known: bool,
    begin: Path | None = None,
) -> dict[str, Any] | None:
    """Trains a run, from the weights of the run `begin` if there is one, and keeps in its result.json what the test
    says, given what is known of the best epoch; with the seconds of training in all its sittings. None if that is done
    already, or is `known` and not begun again."""
    if (run / "result.json").exists() or (known and not run.exists()):
        return None
    start, clock = time.monotonic(), run / "seconds"
    before = float(clock.read_text()) if clock.exists() else 0.0
    try:
        best = train(recipe, config, run, fit, begin)
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


@dataclass(frozen=True)
class Job:
    """One run of a `Trained` table: on which data, of which model, and with which seed."""

    data: str
    model: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data}-{self.model}-seed{self.seed}"


Metrics = dict[str, float]


class Clock:
    """Told how far training has come, it keeps in a file the seconds of computing when each epoch ended, in all
    sittings together."""

    def __init__(self, file: Path, epochs: int):
        self.file, self.epochs, self.began = file, epochs, time.process_time()
        self.marks = read_clock(file)

    def __call__(self, fraction: float, logs: dict[str, int | float]) -> None:
        ended = int(fraction * self.epochs + 1e-6)
        if ended > len(self.marks):
            now = (self.marks or [0.0])[-1] + time.process_time() - self.began
            self.marks += [round(now, 1)] * (ended - len(self.marks))
            self.began = time.process_time()
            write(self.file, json.dumps(self.marks).encode())


def read_clock(file: Path) -> list[float]:
    """The seconds of computing at the end of each epoch."""
    return json.loads(file.read_text()) if file.exists() else []


@dataclass
class Trained:
    """A table of trained models in results/NAME.json, whose rows have the metrics and the seconds of each seed:

        {"data", "model", "seeds": [...], "metrics": {name: [one a seed]}, "seconds": [one a seed],
         "curve": [one a seed: [epoch, seconds, the recipe's metric] after each epoch], "command"}

    A metric that a row lacks is absent. Seconds are those of computing on one thread, however loaded the machine is.
    """

    name: str
    results: Path
    """The file."""
    recipe: ModuleType
    jobs: Iterable[Job]
    """All that is to be done, what matters most first."""
    configuration: Callable[[Job, Path], Any]
    """The recipe's Config of a job, given the folder of data."""
    test: Callable[[Job, Path, Row], dict[str, Metrics]]
    """What a run is worth, given its folder and the row of its best epoch: by the name of the model, and of others that
    are the same run in another use, on other data as DATA/MODEL."""
    others: Mapping[str, ModuleType] = field(default_factory=dict)
    """Of data that have a recipe of their own, that recipe."""
    begins: Callable[[Job], Job | None] = lambda job: None
    """The job whose weights a model has at first, if any: it comes before, with the same seed."""

    def do(self, job: Job, data: Path, folder: Path, fit: Fit) -> None:
        """Trains and tests one run, unless that is done. Raises Failure if another process is at it."""
        run, clock, config = folder / str(job), folder / f"{job}.json", self.configuration(job, data)
        recipe = self.others.get(job.data, self.recipe)
        known = any(self._is(row, job) and job.seed in row["seeds"] for row in kept(self.results))

        def said(best: Row) -> dict[str, Any]:
            rows = zip(read_metrics(run), read_clock(clock), strict=False)
            curve = [[row["epoch"], now, round(row[recipe.METRIC.name], 3)] for row, now in rows]
            return {**asdict(job), "metrics": self.test(job, run, best), "curve": curve}

        before = self.begins(job)
        begin = folder / str(before) if before else None
        result = once(recipe, config, run, replace(fit, progress=Clock(clock, config.epochs)), said, known, begin)
        if result:
            found = {name: results.rounded(value) for name, value in result["metrics"][job.model].items()}
            print(f"{job}: {found} in {result['curve'][-1][1]:.0f} s of computing", flush=True)

    def collect(self, folder: Path) -> list[dict[str, Any]]:
        """The rows: what is kept of each seed, or what its run says if there is one."""
        rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for row in kept(self.results):
            for n, seed in enumerate(row["seeds"]):
                metrics = {name: values[n] for name, values in row["metrics"].items()}
                found = {"metrics": metrics, "curve": row["curve"][n]}
                found |= {name: row[name] for name in ("machine", "command")}
                rows.setdefault((row["data"], row["model"]), {})[seed] = found
        for each in finished(folder):
            for name, metrics in each["metrics"].items():
                data, _, model = name.rpartition("/")
                of = f"--of {each['data']} --model {each['model']}"
                command = f"regard experiment {self.name} --data DIR {of}"
                found = {**each, "metrics": metrics, "command": command}
                rows.setdefault((data or each["data"], model), {})[each["seed"]] = found
        return [self._row(data, model, seeds) for (data, model), seeds in sorted(rows.items(), key=self._place)]

    def write(self, folder: Path) -> None:
        """Writes the file from what is finished."""
        found = {"name": self.name, "machine": results.machine(), "rows": self.collect(folder)}
        results.save_json(found, self.results)

    def run(self, options: argparse.Namespace, threads: int = 1) -> list[dict[str, Any]]:
        """Does what the options ask for, if they name the data, and gives the rows."""
        if options.data:
            data, trained_by = options.data.resolve(), fit(options, threads)
            chosen = argparse.Namespace(**{**vars(options), "data": options.of})
            do_all(
                asked(self.jobs, chosen),
                lambda job: self.do(job, data, options.runs, trained_by),
                lambda: self.write(options.runs),
            )
        return self.collect(options.runs)

    def _is(self, row: dict[str, Any], job: Job) -> bool:
        return (row["data"], row["model"]) == (job.data, job.model)

    def _place(self, row: tuple[tuple[str, str], Any]) -> tuple[int, str, int]:
        """Where a row stands: in the order of the jobs, and what is another use of a run behind them."""
        (data, model), _ = row
        order = [(job.data, job.model) for job in self.jobs]
        datas, models = (list(dict.fromkeys(each)) for each in zip(*order, strict=True))
        return (
            datas.index(data) if data in datas else len(datas),
            data,
            models.index(model) if model in models else len(models),
        )

    def _row(self, data: str, model: str, seeds: dict[int, dict[str, Any]]) -> dict[str, Any]:
        each = [seeds[seed] for seed in sorted(seeds)]
        names = [name for name in each[0]["metrics"] if all(name in one["metrics"] for one in each)]
        return {
            "data": data,
            "model": model,
            "seeds": sorted(seeds),
            "metrics": {name: [round(one["metrics"][name], 4) for one in each] for name in names},
            "seconds": [one["curve"][-1][1] for one in each],
            "curve": [one["curve"] for one in each],
            "machine": each[-1]["machine"],
            "command": each[-1]["command"],
        }


def table_parser(table: Trained, about: str, data: str, figure: bool = False) -> argparse.ArgumentParser:
    """The flags of an experiment that makes a `Trained` table."""
    flags = parser(table.name, about, data, figure)
    flags.add_argument("--of", choices=list(dict.fromkeys(job.data for job in table.jobs)), help="one data set alone")
    flags.add_argument("--model", choices=list(dict.fromkeys(job.model for job in table.jobs)), help="one model alone")
    flags.add_argument("--seed", type=int, help="one seed alone")
    return flags
