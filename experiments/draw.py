"""Painting images: DRAW with and without attention, beside autoencoders of the same size, at equal time.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation", table 1: with 64 steps and much longer
training on MNIST, in the binarisation of Salakhutdinov and Murray, the bound is 80.97 nats with attention and 87.40
without. Here too a pixel is on with the probability that is its brightness, but drawn with a seed of our own, so that
the figures are near to the paper's and not to be compared to a nat.

    regard experiment draw --data DIR                               every row: many hours on one core
    regard experiment draw --data DIR --of mnist --model draw       one row of the table, with all its seeds
    regard experiment draw                                          the table, as far as it is finished
    regard experiment draw --figure docs/pictures/nats.png --painted docs/pictures/draw.png    and what it shows

`mnist` has the digits as they are, on 28x28 pixels; `canvas60` and `canvas100` have them somewhere on a canvas of 60x60
or 100x100. The configuration of a row is `draw/DATA-MODEL.yaml` beside this script. Seconds are those of one thread's
computing, however loaded the machine is; a curve has them after each epoch, with the bound of the validation images.

Runs are kept in `runs/draw` and are resumed; several of these commands may run at once, each takes runs that no other
has. What is finished is in `results/draw.json`. The epoch is chosen by the validation images; the test images are seen
once, by the finished run. A seed that is in the results is not trained again: take its row out first.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.report.drawings import COLOURS, DASHES
from regard.app.results import give, mean_and_spread, save_figure, save_stacked
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import draw

HERE = Path(__file__).parent
MODELS = ("draw", "draw-without-attention", "vae", "autoencoder")
ROWS = {"mnist": MODELS, "canvas60": MODELS[:2], "canvas100": MODELS[:2]}
"""The models of each data set."""
SEEDS = {"mnist": 3, "canvas60": 1, "canvas100": 1}
PAINTED = 4
"""Digits whose painting is drawn."""
METRICS = ("nats", "reconstruction", "divergence")
"""Of the test images; the first is the one that counts."""


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    for seed in range(max(SEEDS.values())):
        yield from (Job(data, model, seed) for data in ROWS for model in ROWS[data] if seed < SEEDS[data])


def configuration(job: Job, data: Path) -> draw.Config:
    """The row's configuration, as committed."""
    fields = yaml.safe_load((HERE / "draw" / f"{job.data}-{job.model}.yaml").read_text(encoding="utf-8"))
    return draw.Config(**fields, data=str(data), model=job.model, seed=job.seed)  # pyright: ignore[reportArgumentType]


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """The bound of the test images, and its parts."""
    opened = open_run(run)
    means = averages(opened, opened.splits.test)
    return {job.model: {name: means[name] for name in METRICS}}


TABLE = Trained("draw", HERE / "results" / "draw.json", draw, tuple(jobs()), configuration, test)


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


def painted(runs: Path, file: Path) -> None:
    """Draws how the first seed of DRAW paints some test digits, and samples of it."""
    opened = open_run(runs / str(Job("mnist", "draw", 0)))
    pictures = draw.look(opened.model, opened.splits.test.batch(torch.arange(PAINTED)))
    save_stacked([each.png for each in pictures], file)


def main() -> None:
    """The command line."""
    flags = table_parser(TABLE, "Painting images.", "the folder of MNIST's four files", figure=True)
    flags.add_argument("--painted", type=Path, metavar="FILE", help="draw how DRAW paints, as PNG")
    options = flags.parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "draw", "rows": rows}, options, lambda: show(rows))
    if options.figure:
        save_figure(figure(rows), options.figure)
    if options.painted:
        painted(options.runs, options.painted)


if __name__ == "__main__":
    main()
