"""Whether it mattered where trained glimpses looked, and whether the metrics that say so can be trusted.

    regard experiment faithfulness --data embedded      the weights in `weights/`, in some minutes on one core
    regard experiment faithfulness                      the table

Of each model `regard.faithfulness` says what its answers lose when the pixels it read are hidden, or shown alone,
beside a random order and that of an oracle, which has the pixels of the digit first; the pointing game; and the
certificate that what was not read had no effect. `tau` is the rank correlation of a metric with the truth: of orders
that mix the oracle's with a random one the metric should have the better one first.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from regard.app import results
from regard.app.experiments import kept, parser
from regard.app.explaining import measured

HERE = Path(__file__).parent
FILE = HERE / "results" / "faithfulness.json"
MODELS = ("60-translated-8", "60-cluttered-8", "100-cluttered-8")


def rows(data: str, examples: int) -> Iterator[list[dict[str, Any]]]:
    """A row for each metric of each model that is not kept already; all of them, again after each model."""
    found = {row["data"]: [each for each in kept(FILE) if each["data"] == row["data"]] for row in kept(FILE)}
    for model in MODELS:
        if model not in found:
            found[model] = list(rows_of(model, data, examples))
            yield [row for name in MODELS for row in found.get(name, [])]


def rows_of(model: str, data: str, examples: int) -> Iterator[dict[str, Any]]:
    """The rows of a model."""
    weights = HERE.parent / "weights" / f"ram-{model}.safetensors"
    for metric, orders in measured(weights, None, data, examples).items():
        yield results.rounded({"data": model, "metric": metric, "images": examples, **orders})


def show(found: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table("model", "metric", "given", "random", "oracle", "tau", title="faithfulness")
    for row in found:
        table.add_row(row["data"], row["metric"], *(results.printed(row.get(each)) for each in ORDERS))
    Console().print(table)


ORDERS = "given", "random", "oracle", "tau"


def main() -> None:
    """The command line."""
    flags = parser("faithfulness", "Whether it mattered where it looked.", "embedded, or a folder of MNIST's files")
    flags.add_argument("--examples", type=int, default=32, help="test images of each model")
    options = flags.parse_args()
    torch.set_num_threads(1)
    for found in rows(str(options.data), options.examples) if options.data else ():
        results.save_json({"name": "faithfulness", "machine": results.machine(), "rows": found}, FILE)
    printed = {"name": "faithfulness", "rows": kept(FILE)}
    results.give(printed, options, lambda: show(printed["rows"]))


if __name__ == "__main__":
    main()
