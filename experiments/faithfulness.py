"""Whether it mattered where trained models looked, and whether the metrics that say so can be trusted.

    regard experiment faithfulness --data embedded              the weights in `weights/`, in some minutes on one core
    regard experiment faithfulness --data embedded --runs DIR   and runs: half a minute to some minutes each
    regard experiment faithfulness                              the tables

DIR holds what other experiments have left behind, finished: `caption/digits-hard-seed0`, `answer/task2-softmax-seed0`,
`rationale/movies-sigmoid-seed0` and others of `SYSTEMS`, soft attention and hard of the same recipe. What is measured
is in `results/faithfulness.json`, and stays when the runs are gone: take its rows out first to measure it again.

Of each model `regard.faithfulness` says what its answers lose when what it read is hidden, or shown alone, beside a
random order and, where a truth is known, that of an oracle, which has the true places first: the pixels of the digit,
the facts that support an answer, the words that people marked. Then there are the pointing game and the agreement with
integrated gradients, and for hard attention the certificate that what was not read had no effect. `tau` is the rank
correlation of a metric with the truth: of orders that mix the oracle's with a random one the metric should have the
better one first.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from regard.app import results
from regard.app.experiments import kept, parser
from regard.app.explaining import measured

HERE = Path(__file__).parent
FILE = HERE / "results" / "faithfulness.json"
GLIMPSES = ("60-translated-8", "60-cluttered-8", "100-cluttered-8")
SYSTEMS: dict[str, dict[str, str]] = {
    "caption": {each: f"digits-{each}" for each in ("soft", "hard", "reinforce")},
    "answer": {f"{over}, task {n}": f"task{n}-{over}" for n in (1, 2) for over in ("softmax", "sigmoid", "chain")},
    "rationale": {"all": "movies-full"} | {each: f"movies-{each}" for each in ("sigmoid", "subset", "segments")},
    "classify": {each: f"trec-{each}" for each in ("soft", "hard")},
    "read": {each: f"novels-{each}" for each in ("sum", "sum-hard", "attentive", "attentive-hard")},
    "translate": {each: f"de-en-comparison-{each}-tok" for each in ("additive", "hard")},
}
"""{recipe: {model: its run, without the seed}}."""
ORDERS = "given", "random", "oracle", "tau"


class Model(NamedTuple):
    """Something trained: of a recipe, a kind of attention, and a seed."""

    recipe: str
    model: str
    seed: int


def trained(runs: Path) -> Iterator[tuple[Model, Path]]:
    """The weights beside the repository, and what of `SYSTEMS` is finished among the runs."""
    for name in GLIMPSES:
        yield Model("glimpse", name, 0), HERE.parent / "weights" / f"ram-{name}.safetensors"
    for recipe, models in SYSTEMS.items():
        for model, run in models.items():
            for file in sorted((runs / recipe).glob(f"{run}-seed*/result.json")):
                yield Model(recipe, model, int(file.parent.name.rpartition("-seed")[2])), file.parent


def rows(data: str, runs: Path, examples: int) -> Iterator[list[dict[str, Any]]]:
    """A row for each metric of each model that is not kept already; all of them, again after each model."""
    found: dict[Model, list[dict[str, Any]]] = {}
    for row in kept(FILE):
        found.setdefault(Model(*(row[name] for name in Model._fields)), []).append(row)
    for model, run in trained(runs):
        if model not in found:
            figures = measured(run, None, data if model.recipe == "glimpse" else "", examples)
            found[model] = list(rows_of(model, figures, examples))
            yield [row for one in sorted(found, key=_place) for row in found[one]]


def rows_of(model: Model, figures: Mapping[str, Mapping[str, float]], examples: int) -> Iterator[dict[str, Any]]:
    """The rows of a model."""
    for metric, orders in figures.items():
        yield results.rounded({**model._asdict(), "metric": metric, "examples": examples, **orders})


def _place(model: Model) -> tuple[int, int, int]:
    """Where a model stands: in the order in which they are named above."""
    models = {"glimpse": GLIMPSES, **{recipe: tuple(runs) for recipe, runs in SYSTEMS.items()}}
    return list(models).index(model.recipe), models[model.recipe].index(model.model), model.seed


def show(found: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table("recipe", "model", "seed", "metric", *ORDERS, title="faithfulness")
    for row in found:
        cells = (results.printed(row.get(each)) for each in ORDERS)
        table.add_row(row["recipe"], row["model"], str(row["seed"]), row["metric"], *cells)
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = parser("faithfulness", "Whether it mattered where it looked.", "embedded, or a folder of MNIST's files")
    flags.add_argument("--examples", type=int, default=32, help="test inputs of each model")
    flags.set_defaults(runs=Path("runs"))
    options = flags.parse_args()
    torch.set_num_threads(1)
    for found in rows(str(options.data), options.runs, options.examples) if options.data else ():
        results.save_json({"name": "faithfulness", "machine": results.machine(), "rows": found}, FILE)
    printed = {"name": "faithfulness", "rows": kept(FILE)}
    results.give(printed, options, lambda: show(printed["rows"]))


if __name__ == "__main__":
    main()
