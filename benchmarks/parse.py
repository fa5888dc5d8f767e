"""Parsers that differ in their last layer alone: a distribution over trees, or over the head of each word by itself.

    saccade bench parse --data DIR                                                       every run: many hours
    saccade bench parse --data DIR --corpus ud_english_ewt --over softmax --seed 0       one of them
    saccade bench parse                                                                  the table, as far as it is

DIR holds the folders of the treebanks. What is trained is `parse/CORPUS-SIZE.yaml` beside this script: three seeds of a
small network compare what they are over, a large one shows how far one comes in 40 minutes on two cores. Runs are kept
in `runs/parse` and are resumed; several of these commands may run at once, each takes runs that no other has. What is
finished is in `results/parse.json`, and is not trained again: take its row out first. The best epoch is that of the
most right words of the development part; the test part is seen once, by the finished run.

All words count, punctuation too, and of a relation what is before the colon, as in the shared task CoNLL 2018; without
punctuation is without the words that are tagged PUNCT.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness
import torch
import yaml
from rich.console import Console
from rich.table import Table

from saccade import runs
from saccade.failure import Failure, Interrupted
from saccade.recipes import parse
from saccade.training import Fit, evaluate, train

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


def do(job: Job, data: Path, folder: Path, threads: int) -> None:
    """Trains and tests one run, unless that is done. Raises Failure if another process is at it."""
    run, config = folder / str(job), configuration(job, data)
    if (run / "result.json").exists() or (job in kept() and not run.exists()):
        return
    start, clock = time.monotonic(), run / "seconds"
    before = float(clock.read_text()) if clock.exists() else 0.0
    fit = Fit(accelerator="cpu", threads=threads, precision="bf16-mixed", progress="none")
    try:
        best = train(parse, config, run, fit)
    finally:
        if run.is_dir():
            runs.write(clock, str(before + time.monotonic() - start).encode())
    tested = evaluate(run)
    result: dict[str, Any] = {**asdict(job), **{name: round(100 * tested[f"test_{name}"], 3) for name in SHARES}}
    result |= {"valid_las": round(100 * best["valid_las"], 3), "seconds": round(float(clock.read_text()))}
    result |= {"threads": threads, "machine": harness.machine()}
    runs.write(run / "result.json", json.dumps(result).encode())
    print(f"{job}: UAS {result['uas']:.2f}, LAS {result['las']:.2f} in {result['seconds']} s", flush=True)


def kept() -> dict[Job, dict[str, Any]]:
    """The rows of results/parse.json."""
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    return {_job(row): row for row in rows}


def _job(row: dict[str, Any]) -> Job:
    return Job(row["corpus"], row["size"], row["over"], row["seed"])


def collect(folder: Path) -> list[dict[str, Any]]:
    """What is kept of each run, or what it says itself if it is there."""
    found = [json.loads(file.read_text()) for file in folder.glob("*/result.json")]
    results = kept() | {_job(row): row for row in found}
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
        cells = [_mean_and_spread([row[share] for row in seeds]) for share in SHARES]
        table.add_row(*name, str(len(seeds)), *cells, f"{statistics.fmean(row['seconds'] for row in seeds):.0f}")
    Console().print(table)


def _mean_and_spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """The command line."""
    flags = argparse.ArgumentParser(
        "parse", allow_abbrev=False, description="Parsers over trees and over single heads."
    )
    flags.add_argument(
        "--data", type=Path, metavar="DIR", help="the folder of the treebanks' folders; none to only print"
    )
    flags.add_argument("--runs", type=Path, default=Path("runs/parse"), metavar="DIR", help="where the runs are kept")
    flags.add_argument("--corpus", choices=SIZES, help="one treebank alone")
    flags.add_argument("--size", choices=("small", "large"), help="one size of network alone")
    flags.add_argument("--over", choices=OVERS, help="one distribution alone")
    flags.add_argument("--seed", type=int, help="one seed alone")
    flags.add_argument("--threads", type=int, default=1, help="of a run")
    flags.add_argument("--json", action="store_true", help="print JSON")
    options = flags.parse_args()
    torch.set_num_threads(options.threads)
    wanted = {name: getattr(options, name) for name in ("corpus", "size", "over", "seed")}
    asked = {name: value for name, value in wanted.items() if value is not None}
    for job in jobs() if options.data else ():
        if asked.items() <= asdict(job).items():
            try:
                do(job, options.data.resolve(), options.runs, options.threads)
            except Interrupted as interrupted:
                raise SystemExit(str(interrupted)) from None
            except Failure as failure:
                print(f"{job}: {failure}", flush=True)
            found = {"name": "parse", "machine": harness.machine(), "rows": collect(options.runs)}
            runs.write(RESULTS, json.dumps(found, indent=2).encode() + b"\n")
    rows = collect(options.runs)
    print(json.dumps({"name": "parse", "rows": rows}, indent=2)) if options.json else show(rows)


if __name__ == "__main__":
    main()
