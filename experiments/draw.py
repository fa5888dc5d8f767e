"""Painting images: DRAW with and without attention, beside autoencoders of the same size, at equal time.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation", table 1: with 64 steps and much longer
training on MNIST, in the binarisation of Salakhutdinov and Murray, the bound is 80.97 nats with attention and 87.40
without. Here too a pixel is on with the probability that is its brightness, but drawn with a seed of our own, so that
the figures are near to the paper's and not to be compared to a nat.

    regard experiment draw --data DIR                               every row: six hours on one core
    regard experiment draw --data DIR --task mnist --model draw     one row of the table, with all its seeds
    regard experiment draw                                          the table, as far as it is finished

`mnist` has the digits as they are, on 28x28 pixels; `canvas60` and `canvas100` have them somewhere on a canvas of 60x60
or 100x100. The configuration of a row is `draw/TASK-MODEL.yaml` beside this script. Seconds are those of one thread's
computing, however loaded the machine is; a curve has them after each epoch, with the bound of the validation images.

Runs are kept in `runs/draw` and are resumed; several of these commands may run at once, each takes runs that no other
has. What is finished is in `results/draw.json`. The epoch is chosen by the validation images; the test images are seen
once, by the finished run. A seed that is in the results is not trained again: take its row out first.
"""

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from regard.app import experiments
from regard.app.report.drawings import COLOURS, DASHES
from regard.app.results import give, machine, mean_and_spread, save_figure, save_json
from regard.app.training.evaluation import averages
from regard.app.training.fabric import Fit
from regard.app.training.files import write
from regard.app.training.metrics import Row, read_metrics
from regard.app.training.run import open_run
from regard.recipes import draw

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "draw.json"
MODELS = ("draw", "draw-without-attention", "vae", "autoencoder")
ROWS = {"mnist": MODELS, "canvas60": MODELS[:2], "canvas100": MODELS[:2]}
"""The models of each task."""
SEEDS = {"mnist": 3, "canvas60": 1, "canvas100": 1}
METRICS = ("nats", "reconstruction", "divergence")
"""Of the test images; the first is the one that counts."""


@dataclass(frozen=True)
class Job:
    """One run: a row of the table and a seed."""

    task: str
    model: str
    seed: int

    @property
    def row(self) -> tuple[str, str]:
        """The row that it is of."""
        return self.task, self.model

    def __str__(self) -> str:
        return f"{self.task}-{self.model}-seed{self.seed}"


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    for seed in range(max(SEEDS.values())):
        yield from (Job(task, model, seed) for task in ROWS for model in ROWS[task] if seed < SEEDS[task])


def configuration(job: Job, data: str) -> draw.Config:
    """The row's configuration, as committed."""
    fields = yaml.safe_load((HERE / "draw" / f"{job.task}-{job.model}.yaml").read_text(encoding="utf-8"))
    return draw.Config(**fields, data=data, model=job.model, seed=job.seed)  # pyright: ignore[reportArgumentType]


class Clock:
    """Told how far training has come, it keeps in a file the seconds of computing when each epoch ended."""

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


def do(job: Job, data: str, folder: Path, fit: Fit) -> None:
    """Trains and tests one run, unless that is done. Raises Failure if another process is at it."""
    run, config = folder / str(job), configuration(job, data)
    known = any(_key(row) == job.row and job.seed in row["seeds"] for row in experiments.kept(RESULTS))
    clock = folder / f"{job}.json"

    def said(best: Row) -> dict[str, Any]:
        opened = open_run(run)
        means = averages(opened, opened.splits.test)
        rows = zip(read_metrics(run), read_clock(clock), strict=False)
        curve = [[row["epoch"], seconds, round(row["valid_nats"], 2)] for row, seconds in rows]
        parts = {name: means[name] for name in METRICS}
        return {**asdict(job), **parts, "curve": curve, "core_seconds": curve[-1][1] if curve else 0.0}

    result = experiments.once(draw, config, run, replace(fit, progress=Clock(clock, config.epochs)), said, known)
    if result:
        print(f"{job}: {result['nats']:.2f} nats in {result['core_seconds']:.0f} s", flush=True)


def collect(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table: what is kept of each seed, or what its run says if there is one."""
    found = {
        (*_key(row), seed): _seed(row, n) for row in experiments.kept(RESULTS) for n, seed in enumerate(row["seeds"])
    }
    found |= {(each["task"], each["model"], each["seed"]): each for each in experiments.finished(folder)}
    rows = dict.fromkeys(job.row for job in jobs())
    seeds = {row: [found[*row, seed] for seed in range(SEEDS[row[0]]) if (*row, seed) in found] for row in rows}
    return [_row(each) for each in seeds.values() if each]


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["data"], row["model"]


def _seed(row: dict[str, Any], n: int) -> dict[str, Any]:
    """What a row says of one of its seeds."""
    parts = {name: values[n] for name, values in row["metrics"].items()}
    rest = {"core_seconds": row["seconds"][n], "curve": row["curve"][n], "machine": row["machine"]}
    return {"task": row["data"], "model": row["model"], "seed": row["seeds"][n], **parts, **rest}


def _row(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table from the results of its seeds."""
    task, model = seeds[0]["task"], seeds[0]["model"]
    return {
        "data": task,
        "model": model,
        "seeds": [each["seed"] for each in seeds],
        "metrics": {name: [round(each[name], 3) for each in seeds] for name in METRICS},
        "seconds": [each["core_seconds"] for each in seeds],
        "curve": [each["curve"] for each in seeds],
        "machine": seeds[-1]["machine"],
        "command": f"regard experiment draw --data DIR --task {task} --model {model}",
    }


def write_results(folder: Path) -> None:
    """Writes results/draw.json from what is finished."""
    save_json({"name": "draw", "machine": machine(), "rows": collect(folder)}, RESULTS)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    table = Table("data", "model", *METRICS, "epochs", "seconds", title="draw: nats of a test image")
    for row in rows:
        metrics = (mean_and_spread(row["metrics"][name]) for name in METRICS)
        seconds = f"{statistics.fmean(row['seconds']):.0f}"
        table.add_row(row["data"], row["model"], *metrics, str(len(row["curve"][0])), seconds)
    Console().print(table)
    print("The nats of an autoencoder are those of its reconstruction alone, and no bound.")


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """The bound of the validation images by seconds and by epochs, the first seed of each row but the autoencoder's."""
    tasks = list(dict.fromkeys(row["data"] for row in rows))
    drawn = Figure(figsize=(9, 3.4 * max(1, len(tasks))), layout="constrained")
    for task, pair in zip(tasks, drawn.subplots(max(1, len(tasks)), 2, squeeze=False), strict=False):
        curves = {
            row["model"]: row["curve"][0] for row in rows if row["data"] == task and row["model"] != "autoencoder"
        }
        _draw_curves(pair, curves, task)
    return drawn


def _draw_curves(pair: Sequence[Any], curves: dict[str, list[list[float]]], task: str) -> None:
    """A task's curves, on the left by seconds and on the right by epochs, cut off at twice the least bound."""
    least = min((nats for curve in curves.values() for *_, nats in curve), default=100.0)
    for axes, column, name in zip(pair, (1, 0), ("seconds of one thread", "epochs"), strict=True):
        for model, curve in curves.items():
            n = MODELS.index(model)
            line = {"color": COLOURS[n][0], "linestyle": (0, DASHES[n]), "label": model}
            axes.plot([each[column] for each in curve], [each[2] for each in curve], **line)
        axes.set(xlabel=name, ylabel="nats", title=task, xlim=(0, None), ylim=(0.95 * least, 1.5 * least))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)


def main() -> None:
    """The command line."""
    flags = experiments.parser("draw", "Painting images.", "the folder of MNIST's four files", figure=True)
    flags.add_argument("--task", choices=ROWS, help="one task alone")
    flags.add_argument("--model", choices=MODELS, help="one model alone")
    flags.add_argument("--seed", type=int, help="one seed alone")
    flags.set_defaults(precision="32-true")
    options = flags.parse_args()
    torch.set_num_threads(1)
    if options.data:
        data, fit = str(options.data.resolve()), experiments.fit(options)
        experiments.do_all(
            experiments.asked(jobs(), options),
            lambda job: do(job, data, options.runs, fit),
            lambda: write_results(options.runs),
        )
    rows = collect(options.runs)
    give({"name": "draw", "rows": rows}, options, lambda: show(rows))
    if options.figure:
        save_figure(figure(rows), options.figure)


if __name__ == "__main__":
    main()
