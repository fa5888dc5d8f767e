"""Questions about images of 1500 x 1500 pixels, answered from a few patches: how many are wrong, and what was read.

Katharopoulos and Fleuret 2019, "Processing megapixel images with deep attention-sampling models", figure 3: with ten
patches the published implementation stays at 90 % wrong for 210 epochs, and comes to 20 %. Bergner et al. 2023,
"Iterative patch selection", table 3, reads every pixel once.

    regard experiment sampling --data DIR                                 every row: hours on one core
    regard experiment sampling --data DIR --of majority --model sampled   one row of the table, with all its seeds
    regard experiment sampling --data DIR --of bags                       three rows in minutes
    regard experiment sampling                                            the table, as far as it is finished
    regard experiment sampling --figure docs/pictures/sampling.png        error against what is read

DIR holds the folders `mnist` and `photos_large`. The configuration of a row is `sampling/DATA.yaml` beside this script,
and over it `sampling/MODEL.yaml` and `sampling/DATA-MODEL.yaml`, where there are such. Runs are kept in `runs/sampling`
and are resumed; several of these commands may run at once, each takes runs that no other has. What is finished is in
`results/sampling.json`, and is not trained again: take its row out first. The best epoch is that of the fewest wrong on
the validation images; the 1,000 test images are seen once, by the finished run.

`sampled-brightness` and `sampled-learned` begin with another idea of what is worth to look at; `sampled-25` reads 25
patches; `sampled-mean` averages what is found before it is judged; `sampled-sure` may become sure of where to look, as
its entropy has no floor; `sampled-drawn` is `sampled`, tested on places that are drawn.

`slides` are tiled files of 2048 x 2048 pixels, written from the photographs to `runs/slides` (700 MB) and never read as
a whole: which of four kinds are the small marks on one? Of each file the bytes that are read are counted, its
header among them. `bags` are those of Ilse, Tomczak and Welling 2018, "Attention-based deep multiple instance
learning", section 4.2: is there a nine among ten digits? 200 bags are learned from, and 1,000 are of the test.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import bags
import marked
import torch
import yaml
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import regard as rg
from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.report.drawings import COLOURS
from regard.app.results import give, mean_and_spread, save_figure
from regard.app.training.evaluation import averages, results
from regard.app.training.metrics import Row
from regard.app.training.run import OpenedRun, open_run
from regard.app.vision.sampled import drawn
from regard.recipes import sampling
from regard.recipes.base import open_recipe

HERE = Path(__file__).parent
TASKS = ("majority", "max", "top", "several")
MODELS = ("sampled", "top-k", "random", "grid", "gated-mil", "ips")
CHANGES: dict[str, dict[str, Any]] = {
    "sampled-brightness": {"prior": "brightness"},
    "sampled-learned": {"prior": "learned"},
    "sampled-25": {"patches": 25},
    "sampled-mean": {"answer": "mean"},
    "sampled-sure": {"floor": 0.0},
}
"""The majority by sampled attention, each with one thing changed."""
SEEDS = 3
SLIDES, ON_SLIDES, ON_BAGS = Path("runs", "slides"), ("sampled", "top-k", "random"), ("mil", "gated-mil", "mean")


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job("majority", model, seed) for seed in range(SEEDS) for model in MODELS)
    yield from (Job("bags", model, seed) for seed in range(SEEDS) for model in ON_BAGS)
    yield from (Job("slides", model, seed) for seed in range(SEEDS) for model in ON_SLIDES)
    yield from (Job(task, "sampled", seed) for seed in range(SEEDS) for task in TASKS[1:])
    yield from (Job("majority", model, seed) for seed in range(SEEDS) for model in CHANGES)


def configuration(job: Job, data: Path) -> sampling.Config | bags.Config:
    """The configuration of a model, as committed, with what a task has of its own."""
    if job.data == "bags":
        return bags.Config(data=str(data / "mnist"), attention=job.model, seed=job.seed)  # pyright: ignore[reportArgumentType]
    attention = job.model if job.model in MODELS else "sampled"
    fields: dict[str, Any] = {"data": str(data / "mnist")}
    for name in (job.data, attention, f"{job.data}-{attention}"):
        if (file := HERE / "sampling" / f"{name}.yaml").exists():
            fields |= yaml.safe_load(file.read_text(encoding="utf-8"))
    fields |= {"data": str(SLIDES)} if job.data == "slides" else {"task": job.data}
    fields |= {"attention": attention, "seed": job.seed} | CHANGES.get(job.model, {})
    return sampling.Config(**fields)


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """What the test images say of a run; and of sampled attention, with its places drawn."""
    if job.data in ("bags", "slides"):
        found = tested_on_bags(run) if job.data == "bags" else tested_on_slides(run)
        return {job.model: found | {"epoch": float(best["epoch"])}}
    opened = open_run(run)
    found = {job.model: tested(opened) | {"epoch": float(best["epoch"])}}
    if job.model == "sampled":
        opened.model.chosen = lambda scores, _: drawn(scores, opened.model.config.patches)
        found["sampled-drawn"] = tested(opened)
    return found


def tested(opened: OpenedRun) -> Metrics:
    """The figures of the test split."""
    means = averages(opened, opened.splits.test)
    shares = {"error": "error_percent", "share": "share_read_percent", "covered": "covered_percent"}
    return {name: 100 * means[key] for key, name in shares.items()} | {"entropy_nats": means["entropy"]}


def tested_on_bags(run: Path) -> Metrics:
    """The figures of the test bags."""
    opened = open_run(run, recipe=open_recipe(bags))
    found = [values for _, values in results(opened, opened.splits.test)]
    names = ("score", "label", "error", "pointing")
    score, label, error, pointing = (torch.cat([each[name] for each in found]) for name in names)
    shares = {"error_percent": error, "pointing_percent": pointing}
    return {"auc": bags.auc(score, label)} | {name: 100 * float(each.mean()) for name, each in shares.items()}


def tested_on_slides(run: Path) -> Metrics:
    """The figures of the test slides, each opened anew, as a user would ask about it."""
    trained = rg.load(run)
    slides = [each for each in marked.read_marks(SLIDES) if "test" in each.path.parts]
    found = [tested_on_slide(trained, each) for each in slides]
    return {name: 100 * fmean(each[name] for each in found) for name in found[0]}


def tested_on_slide(trained: Any, slide: marked.Marked) -> Metrics:
    """The same figures of one of them, as shares."""
    source, size = rg.open_image(slide.path), trained.config.size
    (answer,) = trained.predict([source])
    on = [any(marked.touches(place, size, corner) for corner in slide.corners) for place in answer.places]
    return {
        "error_percent": float(answer.answer != slide.label),
        "share_read_percent": source.bytes / slide.path.stat().st_size,
        "pointing_percent": fmean(on),
        "covered_percent": float(any(on)),
    }


RESULTS = HERE / "results" / "sampling.json"
TABLE = Trained("sampling", RESULTS, sampling, tuple(jobs()), configuration, test, others={"bags": bags})


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    names = {"error_percent": 1, "auc": 3, "share_read_percent": 2, "covered_percent": 1, "pointing_percent": 1}
    names |= {"entropy_nats": 2}
    table = Table("question", "model", "seeds", *names, "seconds", title="sampling: the test images")
    for row in rows:
        cells = [mean_and_spread(row["metrics"].get(name), digits) for name, digits in names.items()]
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *cells, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Of the majority, left the wrong validation images after each epoch, each seed; right those of the test by the
    share of the pixels that are read."""
    page = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = page.subplots(1, 2)
    shown = [row for row in rows if row["data"] == "majority" and row["model"] in MODELS]
    for row in shown:
        colour = COLOURS[MODELS.index(row["model"])][0]
        for number, curve in enumerate(row["curve"]):
            label = {"label": row["model"]} if number == 0 else {}
            left.plot([each[1] for each in curve], [100 * each[2] for each in curve], color=colour, alpha=0.8, **label)
        metrics = {name: fmean(values) for name, values in row["metrics"].items()}
        right.scatter(metrics["share_read_percent"], metrics["error_percent"], color=colour, label=row["model"])
    left.set(xlabel="seconds of one thread", ylabel="wrong, %", ylim=(0, 100))
    right.set(xlabel="read of the pixels, %", ylabel="wrong, %", xscale="log", ylim=(0, 100))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return page


def main() -> None:
    """The command line."""
    about = "Images too large to read, by a few of their patches."
    options = table_parser(TABLE, about, "the folder of all data", figure=True).parse_args()
    torch.set_num_threads(1)
    if options.data and options.of in (None, "slides"):
        marked.write_slides(options.data / "photos_large", SLIDES)
    rows = TABLE.run(options)
    give({"name": "sampling", "rows": rows}, options, lambda: show(rows))
    if options.figure:
        save_figure(figure(rows), options.figure)


if __name__ == "__main__":
    main()
