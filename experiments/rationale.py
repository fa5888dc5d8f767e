"""Film reviews labelled by 15 % of their words, beside what people marked as the reason.

The movie reviews of ERASER (DeYoung et al. 2020; texts of Pang and Lee 2004, rationales of Zaidan, Eisner and Piatko
2007), for or against a film: 1,600 reviews to train on, 200 to choose by and 199 to test. The 200 are in the file of
the training reviews, too, and are left out there. In the test part everything that is a reason was marked, 31 % of the
words; elsewhere some of it.

    regard experiment rationale --data DIR                        every row: two hours on one core
    regard experiment rationale --data DIR --model segments       one row of the table, with all its seeds
    regard experiment rationale                                   the table, as far as it is finished

DIR holds the folders movie_rationales and glove_6b_50d. The configuration of a row is `rationale/movies.yaml` beside
this script, and what is said below. Runs are kept in `runs/rationale` and are resumed; several of these commands may
run at once, each takes runs that no other has. What is finished is in `results/rationale.json`, and is not trained
again: take its row out first.

The epoch is chosen by the labels of the validation reviews; the test part is seen once, by the finished run. Precision
and token F1 are means over reviews. `post-hoc` is the run `full`, which reads all words, and its largest contributions;
its accuracy is that by these words alone.
"""

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
from regard.app.training.metrics import Row, read_metrics
from regard.app.training.run import open_run
from regard.recipes import rationale

HERE = Path(__file__).parent
CHANGES: dict[str, dict[str, Any]] = {
    "segments": {},
    "full": {"over": "all"},
    "random": {"over": "random"},
    "subset": {"over": "subset"},
    "sigmoid": {"over": "sigmoid"},
    "segments-longer": {"stay": 6.0},
    "segments-mean": {"read": "mean"},
    "sigmoid-relaxed": {"over": "sigmoid", "read": "relaxed"},
    "segments-cold": {"soft": 0.0},
    "segments-drifting": {"whole": 0.0},
}
"""The models, by what they have of their own."""
FIRST, SEEDS = ("segments", "full", "random"), 3
DIGITS = {
    "accuracy_percent": 1,
    "valid_accuracy_percent": 1,
    "share_read_percent": 1,
    "precision": 3,
    "token_f1": 3,
    "comprehensiveness": 3,
    "sufficiency": 3,
}
"""The columns of the table."""


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    for models in (FIRST, [model for model in CHANGES if model not in FIRST]):
        yield from (Job("movies", model, seed) for seed in range(SEEDS) for model in models)


def configuration(job: Job, data: Path) -> rationale.Config:
    """The configuration of a model, as committed."""
    fields: dict[str, Any] = yaml.safe_load((HERE / "rationale" / f"{job.data}.yaml").read_text(encoding="utf-8"))
    fields |= {"data": str(data / "movie_rationales"), "vectors": str(data / "glove_6b_50d" / "glove_6b_50d.npz")}
    fields |= {"seed": job.seed} | CHANGES[job.model]
    return rationale.Config(**fields)


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """What the finished run says of the test reviews and which words it read; and which epochs it came through, as the
    least precision of an epoch."""
    opened = open_run(run)
    found = averages(opened, opened.splits.test)
    precise = [row["valid_precision"] for row in read_metrics(run)]
    shared = {name: found[name] for name in ("precision", "token_f1", "piece", "comprehensiveness", "sufficiency")}
    shared |= {"valid_precision": best["valid_precision"], "valid_precision_last": precise[-1]}
    read = {
        "accuracy_percent": 100 - 100 * found["error"],
        "valid_accuracy_percent": 100 - 100 * best["valid_error"],
        "share_read_percent": 100 * found["share_read"],
    }
    if job.model != "full":
        return {job.model: read | shared | {"accuracy_of_all_percent": 100 - 100 * found["error_of_all"]}}
    alone = {"accuracy_percent": 100 - 100 * found["error_of_rationale"]}
    return {"full": read, "post-hoc": alone | shared}


TABLE = Trained("rationale", HERE / "results" / "rationale.json", rationale, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    names = (
        "right, %",
        "in validation, %",
        "words read, %",
        "precision",
        "token F1",
        "comprehensiveness",
        "sufficiency",
    )
    table = Table("model", "seeds", *names, "seconds", title="rationale")
    for row in rows:
        metrics = row["metrics"]
        cells = [mean_and_spread(metrics.get(name, []), digits) for name, digits in DIGITS.items()]
        table.add_row(row["model"], str(len(row["seeds"])), *cells, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def main() -> None:
    """The command line."""
    about = "holds movie_rationales and glove_6b_50d"
    options = table_parser(TABLE, "Film reviews labelled by a few of their words.", about).parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "rationale", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
