"""The next word of running text, by an LSTM that looks back at its own states or does not: perplexities.

Bengio et al. 2003, "A neural probabilistic language model", table 1: 252 by their network with a mixture of trigrams,
312 by the best n-gram model, on the same parts of Brown's corpus, with 16,383 words; here words that occur more than
three times are 17,904. Daniluk et al. 2017, "Frustratingly short attention spans", attend over the last states.

    regard experiment language --data DIR                                every row: hours on one core
    regard experiment language --data DIR --of brown --model cosine      one row of the table, with all its seeds
    regard experiment language                                           the table, as far as it is finished

DIR holds the folder `brown`. The configuration of a row is `language/brown.yaml` beside this script. Runs are kept in
`runs/language` and are resumed; several of these commands may run at once, each takes runs that no other has. What is
finished is in `results/language.json`, and is not trained again: take its row out first. The epoch is the one of the
least perplexity on the first 50,000 words of the validation part; those of the test are told once, by the finished run,
by all words that there are.

Each row has the perplexity with the words that come again and without them. It also has that on the validation part
after each epoch, and the seconds of computing until then: models are to be compared at equal epochs, and at equal time.
`parts` has states in three parts, and looks back by the cosine.
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
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import language

HERE = Path(__file__).parent
MODELS = ("none", "cosine", "additive", "dot", "hard", "parts")
SEEDS = 3


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job("brown", model, seed) for seed in range(SEEDS) for model in MODELS)


def configuration(job: Job, data: Path) -> language.Config:
    """The configuration of a model, as committed."""
    fields: dict[str, Any] = yaml.safe_load((HERE / "language" / f"{job.data}.yaml").read_text(encoding="utf-8"))
    fields |= {"attention": "cosine", "parts": True} if job.model == "parts" else {"attention": job.model}
    return language.Config(**fields, data=str(data / "brown"), seed=job.seed)


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """The perplexity of the test part, and how it looked back."""
    opened = open_run(run)
    means = averages(opened, opened.splits.test)
    opened.model.cache = None  # pyright: ignore - the same without words that come again
    alone = averages(opened, opened.splits.test)["perplexity"]
    found = {"perplexity": means["perplexity"], "without_cache": alone}
    found |= {"valid_perplexity": float(best["valid_perplexity"])}
    names = {"entropy": "entropy_nats", "back": "words_back"}
    found |= {name: means[key] for key, name in names.items() if key in means}
    return {job.model: found | {"epoch": float(best["epoch"])}}


TABLE = Trained("language", HERE / "results" / "language.json", language, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    names = {"perplexity": 1, "without_cache": 1, "valid_perplexity": 1, "entropy_nats": 2, "words_back": 1, "epoch": 0}
    table = Table("text", "model", "seeds", *names, "seconds", title="language: the test part")
    for row in rows:
        cells = [mean_and_spread(row["metrics"].get(name), digits) for name, digits in names.items()]
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *cells, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def main() -> None:
    """The command line."""
    options = table_parser(TABLE, "The next word of a text.", "the folder of all data").parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "language", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
