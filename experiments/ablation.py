"""What each part of the recipe bought: the 60x60 cluttered digits, eight glimpses, with one thing changed at a time.

    regard experiment ablation --data DIR

Short runs (4 epochs instead of the 36 of `ram/60-cluttered.yaml`, and 256 units instead of 512), three seeds, judged on
the validation images: the error, and the share of glimpses on the digit from the third on. Runs are kept in
`runs/ablation` and are resumed.

What is in the results was trained with `--precision bf16-mixed`, which is faster where the processor has such numbers,
and several times slower where it has not.
"""

import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ram
import torch
from rich.console import Console
from rich.table import Table

from regard.app import experiments
from regard.app.results import give, machine, mean_and_spread, save_json
from regard.app.training.fabric import Fit
from regard.app.training.metrics import Row
from regard.recipes import glimpse

RESULTS = Path(__file__).parent / "results" / "ablation.json"
SHORT: dict[str, Any] = {"epochs": 4, "hidden": 256}
SEEDS = 3
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "draws that do not narrow": {"final_width": 0.1},
    "a policy as fast as the rest": {"policy_rate": 1.0},
    "locations placed, not moved": {"locations": "placed"},
    "no answer from a glimpse alone": {"alone": 0.0},
    "credit for the last answer alone": {"credit": "last", "discount": 1.0},
    "one path an image": {"draws": 1},
    "four paths an image": {"draws": 4},
    "the policy trains the core, too": {"policy_trains_core": True},
    "no jitter": {"jitter": 0.0},
    "512 units": {"hidden": 512},
    "the paper's recipe": {
        "final_width": 0.1, "policy_rate": 1.0, "locations": "placed", "alone": 0.0, "credit": "last", "discount": 1.0,
        "draws": 1, "jitter": 0.0,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run."""

    change: str
    seed: int

    def __str__(self) -> str:
        return f"{self.change.replace(' ', '-').replace(',', '').replace(':', '')}-seed{self.seed}"


def do(job: Job, data: str, folder: Path, fit: Fit) -> None:
    """Trains one run, unless that is done. Raises Failure if another process is at it."""
    config = ram.configuration(ram.Job("60-cluttered", 8, "hard", job.seed), data)
    config = replace(config, **SHORT | CHANGES[job.change])

    def said(best: Row) -> dict[str, Any]:
        return {**asdict(job), "error": best["valid_error"], "on_digit": best["valid_on_digit"]}

    experiments.once(glimpse, config, folder / str(job), fit, said, known=False)


def collect(folder: Path) -> dict[str, Any]:
    """What is finished, as it is printed as JSON, or, without the runs, what was."""
    results = experiments.finished(folder)
    if not results and RESULTS.exists():
        return json.loads(RESULTS.read_text())
    rows = []
    for change, fields in CHANGES.items():
        seeds = [each for each in results if each["change"] == change]
        if seeds:
            errors, hits = ([round(100 * each[name], 2) for each in seeds] for name in ("error", "on_digit"))
            rows.append({"change": change, "fields": fields, "valid_error_percent": errors, "on_digit_percent": hits})
    return {"name": "ablation", "machine": machine(), **SHORT, "rows": rows}


def write_results(folder: Path) -> None:
    """Writes results/ablation.json from what is finished."""
    save_json(collect(folder), RESULTS)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table("change", "validation error %", "on the digit %", "seeds", title="ablation")
    for row in rows:
        errors, hits = row["valid_error_percent"], row["on_digit_percent"]
        numbers = mean_and_spread(errors), f"{statistics.fmean(hits):.1f}"
        table.add_row(row["change"], *numbers, str(len(errors)))
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = experiments.parser("ablation", "What each part bought.", "the folder of MNIST's four files")
    options = flags.parse_args()
    torch.set_num_threads(1)
    if options.data:
        data, fit = str(options.data.resolve()), experiments.fit(options)
        jobs = [Job(change, seed) for seed in range(SEEDS) for change in CHANGES]
        experiments.do_all(jobs, lambda job: do(job, data, options.runs, fit), lambda: write_results(options.runs))
    found = collect(options.runs)
    give(found, options, lambda: show(found["rows"]))


if __name__ == "__main__":
    main()
