"""Machines with a memory, addressed softly and hard: how many bits are wrong of sequences longer than any in training.

Graves et al. 2014, "Neural Turing machines", figures 4 and 5: trained on copies of 1 to 20 vectors of 8 bits, copies of
up to 120 are nearly right; an LSTM's are not beyond 20.

    regard experiment recall --data .                              every row: hours on one core
    regard experiment recall --data . --of copy --model hard       one row of the table, with all its seeds
    regard experiment recall                                       the table, as far as it is finished
    regard experiment recall --figure docs/pictures/recall.png --tapes docs/pictures/tapes.png    and what it shows

Sequences are generated, so `--data` says only that rows are to be trained. The configuration of a row is
`recall/TASK-MODEL.yaml` beside this script, over `recall/MODEL.yaml`. Runs are kept in `runs/recall` and are resumed;
several of these commands may run at once, each takes runs that no other has. What is finished is in
`results/recall.json`, and is not trained again: take its row out first. The epoch is chosen by the cost, in nats a bit,
of validation sequences, which are as long as those of the test, six times as long as the longest in training.

`wrong_bits_20` is the mean over 100 test sequences of 20 vectors of the bits that are wrong, of 160; `wrong_bits_120`
and `wrong_bits_1000` the same of 120 and of 1,000, of 960 and 8,000, and so on; of associative recall the number is
that of items, and 24 bits are asked for; repeat copy says up to ten times what it was shown.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from regard.app.data.generators.tasks import TASKS, Drawn
from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.report.drawings import COLOURS, DASHES
from regard.app.results import give, mean_and_spread, save_figure, save_stacked
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import recall

HERE = Path(__file__).parent
MODELS = ("soft", "hard", "content", "none")
LENGTHS = {
    "copy": (10, 20, 40, 80, 120, 1000),
    "reverse": (10, 20, 40, 80, 120, 1000),
    "associative": (2, 4, 6, 8, 12, 20),
    "repeat": (5, 10, 15, 20),
}
"""Of the test sequences of each task."""
SEEDS = 5
CHANGES: dict[str, dict[str, Any]] = {
    "hard-feedforward": {"controller": "feedforward"},
    "hard-feedback": {"feedback": True},
    "hard-not-sticky": {"sticky": 0.0},
    "hard-free-entropy": {"entropy": 0.0},
    "hard-full-length": {"start": 20},
    "hard-two-draws": {"draws": 2, "batch": 64, "each": 12800},
    "hard-actor-critic": {"estimator": "actor-critic", "draws": 1, "batch": 128, "each": 25600},
    "hard-one-pointer": {"pointers": 1, "jumps": ("start",)},
}
"""Copy by hard addressing, each with one thing changed: as many steps, and as many draws in each."""
CHANGED_SEEDS = 3
SEQUENCES = 100


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    for tasks in (("copy",), ("reverse",), ("associative", "repeat")):
        yield from (Job(task, model, seed) for seed in range(SEEDS) for task in tasks for model in MODELS)
    yield from (Job("copy", model, seed) for model in CHANGES for seed in range(CHANGED_SEEDS))


def configuration(job: Job, data: Path) -> recall.Config:
    """The configuration of a model, as committed, with what a task has of its own."""
    fields: dict[str, Any] = {}
    address = job.model.partition("-")[0]
    for name in (address, job.data, f"{job.data}-{address}"):
        if (file := HERE / "recall" / f"{name}.yaml").exists():
            fields |= yaml.safe_load(file.read_text(encoding="utf-8"))
    fields |= {"task": job.data, "address": address, "seed": job.seed} | CHANGES.get(job.model, {})
    return recall.Config(**fields)


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """The wrong bits of test sequences of each length."""
    opened = open_run(run)
    config, found = opened.model.config, {"epoch": float(best["epoch"])}
    for length in LENGTHS[job.data]:
        if length > 200 and config.address != "hard":
            continue  # a step of the others takes as long as there are cells
        split = Drawn(TASKS[job.data], SEQUENCES, length, config.bits, seed=2)
        found[f"wrong_bits_{length}"] = averages(opened, split)["wrong"]
    return {job.model: found}


TABLE = Trained("recall", HERE / "results" / "recall.json", recall, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    table = Table("task", "model", "seeds", "wrong bits", "seconds", title="recall: the mean of a test sequence")
    for row in rows:
        wrong = ", ".join(
            f"{name.rpartition('_')[2]}: {mean_and_spread(values, 2)}"
            for name, values in row["metrics"].items()
            if name.startswith("wrong_bits")
        )
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), wrong, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """A column a task: the cost of validation sequences by seconds of computing, each seed of each model; and below it
    the wrong bits by the length of the sequence."""
    tasks = list(dict.fromkeys(row["data"] for row in rows))
    drawn = Figure(figsize=(3.4 * max(1, len(tasks)), 6), layout="constrained")
    for task, (above, below) in zip(tasks, drawn.subplots(2, max(1, len(tasks)), squeeze=False).T, strict=False):
        for row in (row for row in rows if row["data"] == task and row["model"] in MODELS):
            n = MODELS.index(row["model"])
            style: dict[str, Any] = {"color": COLOURS[n][0], "linestyle": (0, DASHES[n]), "alpha": 0.8}
            for curve in row["curve"]:
                above.plot([each[1] for each in curve], [each[2] for each in curve], **style)
            lengths, wrong = by_length(row["metrics"])
            for seed, each in enumerate(wrong):
                below.plot(lengths, each, marker=".", **style | ({"label": row["model"]} if seed == 0 else {}))
        above.set(title=task, xlabel="seconds of one thread", ylabel="nats a bit", ylim=(0, 1))
        below.set(xlabel=f"{'items' if task == 'associative' else 'vectors'} of a sequence", ylabel="wrong bits")
        below.set(yscale="symlog", ylim=(-0.2, None), xscale="log" if max(LENGTHS[task]) > 100 else "linear")
        below.legend(frameon=False)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
    return drawn


def by_length(metrics: dict[str, list[float]]) -> tuple[list[int], list[tuple[float, ...]]]:
    """The lengths that were tested, and the wrong bits of each, of every seed."""
    names = [name for name in metrics if name.startswith("wrong_bits")]
    return [int(name.rpartition("_")[2]) for name in names], list(zip(*(metrics[name] for name in names), strict=True))


def tapes(runs: Path, file: Path) -> None:
    """Draws the memory of the first seed of soft and of hard addressing on the same copy, softly above."""
    pictures = []
    for model in ("soft", "hard"):
        opened = open_run(runs / str(Job("copy", model, 0)))
        pictures += recall.look(opened.model, opened.splits.valid.batch(torch.tensor([0])))
    save_stacked([each.png for each in pictures], file)


def main() -> None:
    """The command line."""
    flags = table_parser(TABLE, "Machines with a memory.", "any folder", figure=True)
    flags.add_argument("--tapes", type=Path, metavar="FILE", help="draw where soft and hard addressing look, as PNG")
    options = flags.parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "recall", "rows": rows}, options, lambda: show(rows))
    if options.figure:
        save_figure(figure(rows), options.figure)
    if options.tapes:
        tapes(options.runs, options.tapes)


if __name__ == "__main__":
    main()
