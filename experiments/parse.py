"""Parsers that differ in their last layer alone: a distribution over trees, or over the head of each word by itself.

    regard experiment parse --data DIR                                                       every run: many hours
    regard experiment parse --data DIR --corpus ud_english_ewt --over softmax --seed 0       one of them
    regard experiment parse                                                                  the table, as far as it is

DIR holds the folders of the treebanks. What is trained is `parse/CORPUS-SIZE.yaml` beside this script: three seeds of a
small network compare what they are over, a large one shows how far one comes in 40 minutes on two cores. Runs are kept
in `runs/parse` and are resumed; several of these commands may run at once, each takes runs that no other has. What is
finished is in `results/parse.json`, and is not trained again: take its row out first. The best epoch is that of the
most right words of the development part; the test part is seen once, by the finished run.

All words count, punctuation too, and of a relation what is before the colon, as in the shared task CoNLL 2018; without
punctuation is without the words that are tagged PUNCT.

What is in the results was trained with `--precision bf16-mixed`, which is faster where the processor has such numbers,
and several times slower where it has not.
"""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from regard.app import experiments
from regard.app.results import give, machine, mean_and_spread, save_json
from regard.app.training.evaluation import evaluate
from regard.app.training.fabric import Fit
from regard.app.training.metrics import Row
from regard.recipes import parse

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "parse.json"
SIZES = {"ud_english_ewt": {"small": 3, "large": 1}, "ud_afrikaans_afribooms": {"small": 3}}
"""How many seeds there are of each size of network, for each treebank."""
OVERS = ("projective", "nonprojective", "softmax")
SHARES = ("uas", "las", "uas_without_punctuation", "las_without_punctuation", "tree")


@dataclass(frozen=True)
class Job:
    """One run."""

    corpus: str
    size: str
    over: str
    seed: int

    def __str__(self) -> str:
        return f"{self.corpus}-{self.size}-{self.over}-seed{self.seed}"


def jobs() -> Iterator[Job]:
    """All that is to be done, a seed of everything before the next."""
    for seed in range(max(max(sizes.values()) for sizes in SIZES.values())):
        for corpus, sizes in SIZES.items():
            for size in (size for size, seeds in sizes.items() if seed < seeds):
                yield from (Job(corpus, size, over, seed) for over in OVERS)


def configuration(job: Job, data: Path) -> parse.Config:
    """The configuration of a size, as committed."""
    fields = yaml.safe_load((HERE / "parse" / f"{job.corpus}-{job.size}.yaml").read_text(encoding="utf-8"))
    return parse.Config(**fields, data=str(data / job.corpus), over=job.over, seed=job.seed)  # pyright: ignore[reportArgumentType]


def do(job: Job, data: Path, folder: Path, fit: Fit) -> None:
    """Trains and tests one run, unless that is done. Raises Failure if another process is at it."""
    run = folder / str(job)

    def test(best: Row) -> dict[str, Any]:
        tested = evaluate(run)
        shares = {name: round(100 * tested[f"test_{name}"], 3) for name in SHARES}
        return {**asdict(job), **shares, "valid_las": round(100 * best["valid_las"], 3), "threads": fit.threads}

    result = experiments.once(parse, configuration(job, data), run, fit, test, job in kept())
    if result:
        print(f"{job}: UAS {result['uas']:.2f}, LAS {result['las']:.2f} in {result['seconds']:.0f} s", flush=True)


def kept() -> dict[Job, dict[str, Any]]:
    """The rows of results/parse.json."""
    return {_job(row): row for row in experiments.kept(RESULTS)}


def _job(row: dict[str, Any]) -> Job:
    return Job(row["corpus"], row["size"], row["over"], row["seed"])


def collect(folder: Path) -> list[dict[str, Any]]:
    """What is kept of each run, or what it says itself if it is there."""
    results = kept() | {_job(row): row for row in experiments.finished(folder)}
    return [results[job] for job in jobs() if job in results]


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table: means over the seeds, and their standard deviations."""
    table = Table(
        "corpus", "network", "over", "seeds", *(name.replace("_", " ") for name in SHARES), "s", title="parse"
    )
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["corpus"], row["size"], row["over"]), []).append(row)
    for name in sorted(groups):
        seeds = groups[name]
        cells = [mean_and_spread([row[share] for row in seeds]) for share in SHARES]
        table.add_row(*name, str(len(seeds)), *cells, f"{statistics.fmean(row['seconds'] for row in seeds):.0f}")
    Console().print(table)


def write_results(folder: Path) -> None:
    """Writes results/parse.json from what is finished."""
    save_json({"name": "parse", "machine": machine(), "rows": collect(folder)}, RESULTS)


def main() -> None:
    """The command line."""
    about = "Parsers over trees and over single heads."
    flags = experiments.parser("parse", about, "the folder of the treebanks' folders")
    flags.add_argument("--corpus", choices=SIZES, help="one treebank alone")
    flags.add_argument("--size", choices=("small", "large"), help="one size of network alone")
    flags.add_argument("--over", choices=OVERS, help="one distribution alone")
    flags.add_argument("--seed", type=int, help="one seed alone")
    flags.add_argument("--threads", type=int, default=1, help="of a run")
    options = flags.parse_args()
    torch.set_num_threads(options.threads)
    if options.data:
        experiments.do_all(
            experiments.asked(jobs(), options),
            lambda job: do(job, options.data.resolve(), options.runs, experiments.fit(options, options.threads)),
            lambda: write_results(options.runs),
        )
    rows = collect(options.runs)
    give({"name": "parse", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
