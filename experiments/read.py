"""Names left out of English novels, told by readers that look softly, look at one word, or do not look.

27,172 questions about 97 novels of 1847 to 1929, in the manner of the Children's Book Test (Hill et al. 2016, "The
Goldilocks Principle"): 20 sentences of a novel, and the one after them, in which a name of the 20 is left out. No
author is in two parts; names are markers, drawn anew in every epoch.

    regard experiment read --data DIR                             every row: half a day on one core
    regard experiment read --data DIR --model attentive           one row of the table, with all its seeds
    regard experiment read                                        the table, as far as it is finished

DIR holds the folders novels_cloze and glove_6b_50d. The configuration of a row is `read/novels-READER.yaml` beside this
script, where there is one, over `read/novels.yaml`. Runs are kept in `runs/read` and are resumed; several of these
commands may run at once, each takes runs that no other has. What is finished is in `results/read.json`, and is not
trained again: take its row out first.

The epoch and everything else is chosen on the validation part; the test part is seen once, by the finished run.
`words_read` are those of a test story, of all looks together. `long_percent` and `short_percent` are right of the
longest and of the shortest third of the test stories.
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
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import read

HERE = Path(__file__).parent
MODELS = ("sum", "sum-hard", "attentive", "attentive-hard", "impatient", "uniform", "impatient-hard")
CHANGES: dict[str, dict[str, Any]] = {
    "sum-alone": {"reader": "sum", "names": 0.0},
    "attentive-alone": {"reader": "attentive", "names": 0.0, "pointing": 0.0},
}
"""Other models, by what they have of their own: without what is learned of other names, or of where to look."""
SEEDS, BATCH = 3, 50


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job("novels", model, seed) for seed in range(SEEDS) for model in MODELS[:-1])
    yield from (Job("novels", model, 0) for model in (*CHANGES, MODELS[-1]))


def configuration(job: Job, data: Path) -> read.Config:
    """The configuration of a model, as committed."""
    reader, _, hard = job.model.partition("-")
    changes = CHANGES.get(job.model, {"reader": reader, "attention": hard or "soft"})
    fields: dict[str, Any] = {}
    for name in (job.data, f"{job.data}-{changes['reader']}"):
        if (file := HERE / "read" / f"{name}.yaml").exists():
            fields |= yaml.safe_load(file.read_text(encoding="utf-8"))
    fields |= {"data": str(data / "novels_cloze"), "vectors": str(data / "glove_6b_50d" / "glove_6b_50d.npz")}
    fields |= {"seed": job.seed} | changes
    return read.Config(**fields)


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """The test questions that are answered rightly, and the words that were read for it."""
    opened = open_run(run)
    split: Any = opened.splits.test
    order = split.lengths.argsort()
    with torch.no_grad():
        found = [read.evaluate(opened.model, split.batch(some)) for some in order.split(BATCH)]
    wrong, words = (torch.cat([each[name] for each in found]) for name in ("error", "words_read"))
    short, _, long = wrong.tensor_split(3)
    percent = {"accuracy_percent": wrong, "short_percent": short, "long_percent": long}
    metrics = {name: 100 - 100 * float(each.mean()) for name, each in percent.items()}
    metrics |= {"valid_accuracy_percent": 100 - 100 * best["valid_error"], "words_read": float(words.mean())}
    return {job.model: metrics}


TABLE = Trained("read", HERE / "results" / "read.json", read, tuple(jobs()), configuration, test)

COLUMNS = {
    "accuracy_percent": "right, %",
    "valid_accuracy_percent": "in validation, %",
    "short_percent": "short stories, %",
    "long_percent": "long stories, %",
    "words_read": "words read",
}


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    table = Table("stories", "model", "seeds", *COLUMNS.values(), "seconds", title="read")
    for row in rows:
        shown = [mean_and_spread(row["metrics"].get(name, []), 1) for name in COLUMNS]
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *shown, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def main() -> None:
    """The command line."""
    options = table_parser(TABLE, "Names left out of novels.", "holds novels_cloze and glove_6b_50d").parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "read", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
