"""Captions by soft and by hard attention, and by what each must beat: trained, tested, and asked where they looked.

Xu et al. 2015, "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", table 1, has BLEU-4 of
19.5 by soft and 21.3 by hard attention on Flickr8k, from 6,000 photographs; here it is 800 of them, with features of a
much smaller network.

    regard experiment caption --data DIR                            every row: many hours on one core
    regard experiment caption --data DIR --of emoji --model hard    one row of the table, with all its seeds
    regard experiment caption                                       the table, as far as it is finished
    regard experiment caption --data DIR --of emoji --model soft --figure docs/pictures/captions.png    where they look

DIR holds the folders `emoji_captions`, `flickr8k_1000` and `squeezenet`; digits are composed of those inside regard.
What is trained is `caption/DATA.yaml` beside this script, and over it `caption/DATA-MODEL.yaml` if there is one. Runs
are kept in `runs/caption` and are resumed; several of these commands may run at once, each takes runs that no other
has. What is finished is in `results/caption.json`, and is not trained again: take its row out first. The best epoch is
that of the highest BLEU on the validation pictures; the test pictures are seen once, by the finished run.

`bleu4` is sacrebleu's of the words as they stand, by a beam of 5, and `exact` the share of the captions that are as in
the data, word by word. `soft-mode` is the soft model read by the mode of its attention. `pointing` is the share of all
digits whose word is right, at its place in the caption, and looks most at a place which the digit's box overlaps;
`movement` the total variation between where a word looks and the next, at most 1; `places` are read for a caption.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

import regard as rg
from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.results import give, mean_and_spread, save_stacked
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import OpenedRun, open_run
from regard.recipes import caption

HERE = Path(__file__).parent
FOLDERS = {"digits": None, "emoji": "emoji_captions", "flickr8k": "flickr8k_1000"}
MODELS = ("soft", "hard", "none", "random", "uniform", "straight-through", "top-k", "reinforce")
SEEDS = 3
BEAM = 5
DRAWN = (100, 300, 500)
"""The test emoji that are drawn."""
SHOWN = {"bleu4": 1, "exact_percent": 1, "pointing_percent": 1, "entropy_nats": 2, "movement": 2, "places": 0}
"""What is printed, to how many digits."""


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    for models in (MODELS[:2], MODELS[2:]):
        yield from (Job(data, model, seed) for seed in range(SEEDS) for data in FOLDERS for model in models)


def configuration(job: Job, data: Path) -> caption.Config:
    """The configuration of the data, as committed, with what a model has of its own."""
    fields: dict[str, Any] = {}
    for name in (job.data, f"{job.data}-{job.model}"):
        if (file := HERE / "caption" / f"{name}.yaml").exists():
            fields |= yaml.safe_load(file.read_text(encoding="utf-8"))
    if folder := FOLDERS[job.data]:
        fields["data"] = str(data / folder)
    fields |= {name: value.replace("DIR", str(data)) for name, value in fields.items() if isinstance(value, str)}
    return caption.Config(**fields | {"attention": job.model, "seed": job.seed})


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """What the test pictures say of a run, and of soft attention that is read by its mode."""
    opened = open_run(run)
    opened.model.config.beam = BEAM
    found = {job.model: tested(opened) | {"valid_bleu": float(best["valid_bleu"]), "epoch": float(best["epoch"])}}
    if job.model == "soft":
        opened.model.teller.attention.read = rg.mode
        found["soft-mode"] = tested(opened)
    return found


def tested(opened: OpenedRun) -> Metrics:
    """The figures of the test split."""
    means = averages(opened, opened.splits.test)
    shares = {"exact_percent": 1 - means["error"]}
    shares |= {"pointing_percent": means["pointing"]} if "pointing" in means else {}
    own = {"bleu4": means["bleu"], "entropy_nats": means["entropy"], "movement": means["movement"]}
    return own | {name: 100 * share for name, share in shares.items()} | {"places": means["places"]}


TABLE = Trained(
    "caption", HERE / "results" / "caption.json", caption, tuple(jobs()), configuration, test
)  # fmt: skip


def figure(runs: Path, file: Path) -> None:
    """Draws where the words of some test emoji looked, by soft attention and below it by hard, of the first seed."""
    models = [open_run(runs / str(Job("emoji", model, 0))) for model in ("soft", "hard")]
    batch = models[0].splits.test.batch(torch.tensor(DRAWN))
    with torch.no_grad():
        drawn = [caption.look(opened.model, batch) for opened in models]
    save_stacked([each.png for pair in zip(*drawn, strict=True) for each in pair], file)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    names = [name.removesuffix("_percent").removesuffix("_nats") for name in SHOWN]
    table = Table("data", "model", *names, "seconds", title=f"caption: the test pictures, up to {SEEDS} seeds")
    for row in rows:
        cells = [mean_and_spread(row["metrics"].get(name), digits) for name, digits in SHOWN.items()]
        table.add_row(row["data"], row["model"], *cells, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def main() -> None:
    """The command line."""
    about = "Captions by soft and by hard attention."
    options = table_parser(TABLE, about, "the folder of all data", figure=True).parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "caption", "rows": rows}, options, lambda: show(rows))
    if options.figure:
        figure(options.runs, options.figure)


if __name__ == "__main__":
    main()
