"""Sentences into constituency trees: written by models that look at words, or not, and by a chart of spans.

CRAFT (Cohen et al. 2017; 97 full articles of biomedicine, 60 of them to learn from and 30 to test) and GUM (Zeldes
2017; English of many kinds, whose trees are a parser's from true parts of speech).

    regard experiment bracket --data DIR                              every row
    regard experiment bracket --data DIR --of craft --model chart     one row of the table: seven minutes on one core
    regard experiment bracket                                         the table, as far as it is finished

DIR holds the folders craft_constituency and gum_constituency. The configuration of a row is `bracket/DATA-MODEL.yaml`
beside this script, over `bracket/DATA.yaml`. Runs are kept in `runs/bracket` and are resumed; several of these commands
may run at once, each takes runs that no other has. What is finished is in `results/bracket.json`, and is not trained
again: take its row out first.

Sentences of up to 40 words are learned from; the epoch is the best on those of the validation part, and the test part
is seen once, by the finished run. Data that end in `-all` are the test sentences of all lengths. Models that end in
`-constrained` are the same runs, told to write well-formed trees alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from regard.app.data.brackets import LONGEST, brackets_to_test
from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.results import give, mean_and_spread
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import bracket

HERE = Path(__file__).parent
DATA = "craft", "gum"
MODELS = "chart", "additive", "none", "hard", "monotonic"
SHORT = 40
"""Words of the longest sentences that are learned from."""
METRICS = "f1", "precision", "recall", "f1_evalb"
SHARES = "malformed", "tags"


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job(data, model, 0) for model in MODELS[:2] for data in DATA)
    yield from (Job(data, model, 0) for data in DATA for model in MODELS[2:])


def configuration(job: Job, data: Path) -> bracket.Config:
    """The configuration of a model on some sentences, as committed."""
    fields: dict[str, Any] = {}
    for name in (job.data, f"{job.data}-{job.model}"):
        if (file := HERE / "bracket" / f"{name}.yaml").exists():
            fields |= yaml.safe_load(file.read_text(encoding="utf-8"))
    fields |= {"data": str(data / f"{job.data}_constituency"), "longest": SHORT, "seed": job.seed}
    return bracket.Config(**fields, decoder=job.model)  # pyright: ignore[reportArgumentType]


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """The brackets of the test sentences, as the model was trained and constrained, and of those of all lengths."""
    opened = open_run(run)
    every = brackets_to_test(opened.config.data, LONGEST, opened.model.known).test
    found = {}
    for name in ("", "-constrained") if job.model != "chart" else ("",):
        opened.model.constrained = bool(name)
        found[f"{job.model}{name}"] = measured(averages(opened, opened.splits.test))
        found[f"{job.data}-all/{job.model}{name}"] = measured(averages(opened, every))
    found[job.model] |= {"valid_f1": best["valid_f1"]}
    return found


def measured(found: dict[str, float]) -> Metrics:
    """The figures in per cent."""
    shares = {f"{name}_percent": 100 * found[name] for name in SHARES}
    return {name: found[name] for name in METRICS} | shares


TABLE = Trained("bracket", HERE / "results" / "bracket.json", bracket, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table."""
    heads = "sentences", "model", "F1", "precision", "recall", "evalb's", "malformed, %", "seconds"
    table = Table(*heads, title="bracket")
    names = (*METRICS, "malformed_percent")
    for row in rows:
        cells = [mean_and_spread(values, 2) for values in (*(row["metrics"][name] for name in names), row["seconds"])]
        table.add_row(row["data"], row["model"], *cells)
    Console().print(table)


def main() -> None:
    """The command line."""
    about = "holds craft_constituency and gum_constituency"
    options = table_parser(TABLE, "Constituency trees by writers and by a chart.", about).parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "bracket", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
