"""What each part of the recipe bought: the 60x60 cluttered digits, eight glimpses, with one thing changed at a time.

    saccade bench ablation --data DIR

Short runs (10 epochs instead of those of `ram/60-cluttered.yaml`), three seeds, judged on the validation images: the
error, and the share of glimpses on the digit from the third on. Runs are kept in `runs/ablation` and are resumed.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import ram
import torch
from rich.console import Console
from rich.table import Table

from saccade import runs
from saccade.failure import Failure, Interrupted
from saccade.recipes import glimpse
from saccade.training import Fit, train

RESULTS = Path(__file__).parent / "results" / "ablation.json"
EPOCHS, SEEDS = 10, 3
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
    "256 units": {"hidden": 256},
    "the paper's: all of these": {
        "final_width": 0.1, "policy_rate": 1.0, "locations": "placed", "alone": 0.0, "credit": "last", "discount": 1.0,
        "draws": 1, "jitter": 0.0, "hidden": 256,
    },
}  # fmt: skip


def do(change: str, seed: int, data: str, folder: Path) -> None:
    """Trains one run, unless that is done."""
    run = folder / f"{change.replace(' ', '-').replace(',', '').replace(':', '')}-seed{seed}"
    config = ram.configuration(ram.Job("60-cluttered", 8, "hard", seed), data)
    best = train(
        glimpse,
        replace(config, epochs=EPOCHS, **CHANGES[change]),
        run,
        Fit(accelerator="cpu", threads=1, precision="bf16-mixed", progress="none"),
    )
    result = {"change": change, "seed": seed, "error": best["valid_error"], "on_digit": best["valid_on_digit"]}
    runs.write(run / "result.json", json.dumps(result).encode())


def collect(folder: Path) -> dict[str, Any]:
    """What is finished, as it is printed as JSON, or, without the runs, what was."""
    results = [json.loads(file.read_text()) for file in sorted(folder.glob("*/result.json"))]
    if not results and RESULTS.exists():
        return json.loads(RESULTS.read_text())
    rows = []
    for change, fields in CHANGES.items():
        seeds = [each for each in results if each["change"] == change]
        if seeds:
            errors, hits = ([round(100 * each[name], 2) for each in seeds] for name in ("error", "on_digit"))
            rows.append({"change": change, "fields": fields, "valid_error_percent": errors, "on_digit_percent": hits})
    return {"name": "ablation", "machine": harness.machine(), "epochs": EPOCHS, "rows": rows}


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table("change", "validation error %", "on the digit %", "seeds", title="ablation")
    for row in rows:
        errors, hits = row["valid_error_percent"], row["on_digit_percent"]
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        numbers = (f"{statistics.fmean(errors):.2f}{spread}", f"{statistics.fmean(hits):.1f}")
        table.add_row(row["change"], *numbers, str(len(errors)))
    Console().print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("ablation", allow_abbrev=False, description="What each part bought.")
    parser.add_argument("--data", default="", metavar="DIR", help="MNIST's four files; only print if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), metavar="DIR", help="where runs are kept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed, change in ((seed, change) for seed in range(SEEDS) for change in CHANGES if options.data):
        try:
            do(change, seed, str(Path(options.data).resolve()), options.runs)
        except Interrupted as interrupted:
            raise SystemExit(str(interrupted)) from None
        except Failure as failure:
            print(f"{change}, seed {seed}: {failure}", flush=True)
        runs.write(RESULTS, json.dumps(collect(options.runs), indent=2).encode() + b"\n")
    found = collect(options.runs)
    print(json.dumps(found, indent=2)) if options.json else show(found["rows"])


if __name__ == "__main__":
    main()
