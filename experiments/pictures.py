"""A folder of photographs, as anybody's own: how many are classified wrongly, and what was read of them.

The first 6,000 training and 1,000 test pictures of CIFAR-10 (Krizhevsky 2009), 32 x 32 pixels in ten classes; trained
from nothing, by the recipe `glimpse`.

    regard experiment pictures --data DIR                             every row: hours on one core
    regard experiment pictures --data DIR --of cifar --model hard     one row of the table, with all its seeds
    regard experiment pictures                                        the table, as far as it is finished

DIR holds the folder `cifar10_subset`, whose `images.tar` is unpacked beside the runs. The configuration of a row is
`pictures/cifar.yaml` beside this script, and that of the recipe. Runs are kept in `runs/pictures` and are resumed;
several of these commands may run at once, each takes runs that no other has. What is finished is in
`results/pictures.json`, and is not trained again: take its row out first. The best epoch is that of the fewest wrong on
the validation pictures; those of the test are seen once, by the finished run.

`random` and `fixed` look anywhere, and at the middle; `cnn` is a residual network that reads every pixel. `hard-zoom`
reads one patch a glimpse, at a scale that it chooses as it does the place, and as many patches in all.
"""

import math
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.results import give, mean_and_spread
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import glimpse

HERE = Path(__file__).parent
MODELS = ("cnn", "hard", "soft", "random", "fixed", "grid")
CHANGES: dict[str, dict[str, Any]] = {"hard-zoom": {"zoom": True, "glimpses": 4}}
"""Hard attention with something changed: each glimpse is one patch of 11 x 11 pixels, at a scale that is chosen."""
SEEDS = 3
UNPACKED = Path("runs") / "cifar10"
"""Where the pictures are while this runs."""


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job("cifar", model, seed) for seed in range(SEEDS) for model in (*MODELS, *CHANGES))


def configuration(job: Job, data: Path) -> glimpse.Config:
    """The configuration of a model, as committed, on the unpacked pictures."""
    fields: dict[str, Any] = yaml.safe_load((HERE / "pictures" / f"{job.data}.yaml").read_text(encoding="utf-8"))
    attention = job.model.partition("-")[0]
    fields |= {"data": str(unpacked(data)), "attention": attention, "seed": job.seed} | CHANGES.get(job.model, {})
    return glimpse.Config(**fields)


def unpacked(data: Path) -> Path:
    """The folder of pictures, which is made if it is not there."""
    if not (UNPACKED / "test").is_dir():
        with tarfile.open(data / "cifar10_subset" / "images.tar") as archive:
            archive.extractall(UNPACKED, filter="data")
    return UNPACKED


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """What the test pictures say of a run."""
    opened = open_run(run)
    means, values = averages(opened, opened.splits.test), math.prod(opened.splits.shape)
    found = {
        "error_percent": 100 * means["error"],
        "valid_error_percent": 100 * best["valid_error"],
        "train_error_percent": 100 * best["train_error"],
        "pixels_read": 100 * means["pixels"] / values,
        "epoch": float(best["epoch"]),
    }
    return {job.model: found}


TABLE = Trained("pictures", HERE / "results" / "pictures.json", glimpse, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    names = {"error_percent": 1, "valid_error_percent": 1, "train_error_percent": 1, "pixels_read": 0, "epoch": 0}
    table = Table("pictures", "model", "seeds", *names, "seconds", title="pictures: those of the test")
    for row in rows:
        cells = [mean_and_spread(row["metrics"].get(name), digits) for name, digits in names.items()]
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *cells, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def main() -> None:
    """The command line."""
    about = "A folder of photographs, by a few glimpses or by all of their pixels."
    options = table_parser(TABLE, about, "the folder of all data").parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "pictures", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
