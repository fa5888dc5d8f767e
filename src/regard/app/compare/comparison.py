"""`regard compare`: every kind of attention of a recipe trained on the same data, then measured in the same way.

A recipe can be compared if its Config has a field `attention` whose type is a Literal of the kinds, or others that its
runs are named by, such as `model`, with kinds that KINDS explains: one of them is compared at a time. It says in KINDS
what each kind is, in COLUMNS what is in the table, and in QUICK what `--quick` makes of its Config. All runs of a
comparison share a folder, `runs/compare/RECIPE/NAME`; a run that is finished there is not trained again.
Everything is done on the CPU.
"""

import json
import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
import yaml

from regard import __version__
from regard.app import explaining
from regard.app.compare import costs, summary
from regard.app.report import looking
from regard.app.report.glances import read_learning
from regard.app.report.layout import write_report
from regard.app.report.report import Report
from regard.app.timing import one_thread
from regard.app.training import workers
from regard.app.training.config import claim as claim_run
from regard.app.training.errors import Failure
from regard.app.training.files import make_folder, write
from regard.app.training.metrics import read_metrics
from regard.app.training.progress import say
from regard.app.training.run import open_run
from regard.recipes.base import Metric, Recipe


def fields(recipe: Recipe) -> tuple[str, ...]:
    """The fields of a recipe's Config whose kinds can be compared, the usual one first: those that its runs are named
    by and whose kinds it explains, or else `attention`."""
    types = get_type_hints(recipe.Config)
    explained = (name for name in recipe.NAMED_BY if recipe.KINDS and {*get_args(types[name])} & {*recipe.KINDS})
    return tuple(explained) or ("attention",)


def kinds(recipe: Recipe, field: str) -> tuple[str, ...]:
    """The kinds that a field of a recipe's Config may be. Raises Failure if there are none to compare."""
    kind = get_type_hints(recipe.Config).get(field)
    if get_origin(kind) is not Literal:
        raise Failure(f"the recipe {recipe.name} has no kinds of {field} to compare.")
    return get_args(kind)


@dataclass(frozen=True)
class Plan:
    """What is compared: a recipe with one configuration but for one field and the seed, in a folder."""

    recipe: Recipe
    field: str
    config: Any
    seeds: int
    folder: Path
    only: tuple[str, ...] = ()
    """The kinds that are wanted; none for all."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds, in the order of the table."""
        return self.only or kinds(self.recipe, self.field)

    def run(self, kind: str, seed: int = 0) -> Path:
        """The folder of one run."""
        return self.folder / f"{kind}-seed{seed}"

    def config_of(self, kind: str, seed: int = 0) -> Any:
        """The configuration of one run."""
        return replace(self.config, **{self.field: kind, "seed": seed})


def compare(plan: Plan, command: str = "regard compare") -> dict[str, Any]:
    """Trains and measures; writes results.json and report.html into the folder, and returns what results.json says.

    Raises Failure if a run fails or is there with another configuration, and Interrupted on Ctrl-C.
    """
    recipe, config = plan.recipe, plan.config
    splits = recipe.data(config)
    say(splits.describe)
    claim(plan)
    measured = measure(plan, splits)
    train(plan, {kind: len(splits.train) * config.epochs / each["training"] for kind, each in measured.items()})
    results = {
        "recipe": recipe.name,
        "data": splits.describe,
        "config": {name: value for name, value in asdict(config).items() if name not in (plan.field, "seed")},
        "seeds": plan.seeds,
        "error_spread": "standard deviation over the seeds" if plan.seeds > 1 else "binomial standard error",
        "example": recipe.noun(splits),
        "machine": machine(),
        "rows": [row(plan, kind, len(splits.test), measured[kind]) for kind in plan.kinds],
        "report": str(plan.folder / "report.html"),
    }
    write(plan.folder / "results.json", json.dumps(results, indent=2).encode())
    write_report(results["report"], report(plan, splits, results, command))
    return results


def claim(plan: Plan) -> None:
    """Makes the folder of each run and writes its configuration. Raises Failure if one is there with another."""
    make_folder(plan.folder)
    for kind in plan.kinds:
        for seed in range(plan.seeds):
            run = make_folder(plan.run(kind, seed))
            claim_run(run, plan.recipe, plan.config_of(kind, seed))


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "processor": platform.machine(),
        "cores": workers.cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "regard": __version__,
    }


def measure(plan: Plan, splits: Any, seconds: float = 0.5) -> dict[str, dict[str, float]]:
    """What each kind costs, before training, which changes none of it: images a second, in turn on one thread."""
    recipe, config = plan.recipe, plan.config
    indices = torch.arange(min(config.batch, len(splits.test)))
    seen, learned = splits.test.batch(indices, None), splits.train.batch(indices, torch.Generator().manual_seed(0))
    configs = {kind: plan.config_of(kind) for kind in plan.kinds}
    models = {kind: recipe.Model(config, splits) for kind, config in configs.items()}
    answer = {kind: costs.inference(recipe, model, seen) for kind, model in models.items()}
    learn = {kind: costs.training(recipe, configs[kind], model, learned) for kind, model in models.items()}
    with one_thread():
        inference = costs.rates(answer, len(indices), seconds)
        training = costs.rates(learn, len(indices), seconds)
        work = {kind: costs.multiply_adds(step) / len(indices) for kind, step in answer.items()}
    return {
        kind: {"inference": inference[kind], "training": training[kind], "multiply_adds": work[kind]} for kind in models
    }


def train(plan: Plan, seconds: Mapping[str, float]) -> None:
    """Trains what is not finished yet, side by side; `seconds` are what each kind will take."""
    expected = {plan.run(kind, seed): seconds[kind] for kind in plan.kinds for seed in range(plan.seeds)}
    workers.train_all(expected, workers.cores(), plan.folder / "log.txt", plan.recipe.source)


def row(plan: Plan, kind: str, examples: int, measured: Mapping[str, float]) -> dict[str, Any]:
    """The results of one kind: means over the seeds, and the spread of its error, if it makes any."""
    seeds = [results_of(plan.run(kind, seed)) for seed in range(plan.seeds)]
    means = {name: statistics.fmean(each[name] for each in seeds) for name in seeds[0]}
    if "test_error" not in means:
        return {"model": kind, **means, **measured}
    error = means["test_error"]
    alone = math.sqrt(error * (1 - error) / examples)
    spread = statistics.stdev(each["test_error"] for each in seeds) if len(seeds) > 1 else alone
    return {"model": kind, **means, "error_spread": spread, **measured}


def results_of(run: Path) -> dict[str, int | float]:
    """The averages over the test split, and what the last epoch of training said of the policy's gradient."""
    last = read_metrics(run)[-1]
    noise = {name: value for name, value in last.items() if name == "train_signal_to_noise"}
    return (workers.read_results(run) or {}) | noise


def report(plan: Plan, splits: Any, results: Mapping[str, Any], command: str) -> Report:
    """The page: the table, the curves, where each looked on the same images, and where each failed."""
    recipe, rows = plan.recipe, results["rows"]
    opened = {kind: open_run(plan.run(kind), recipe=recipe) for kind in plan.kinds}
    first = torch.arange(min(looking.SHOWN, len(splits.test)))
    looks = {kind: looking.look(recipe, each.model, splits.test, first) for kind, each in opened.items()}
    failures = {kind: looking.failures(each, splits.test) for kind, each in opened.items()}
    measures = summary.measured(recipe.COLUMNS, rows)
    title, asked = f"The kinds of {recipe.name}, side by side", "What does each bring, and what does it cost?"
    if {"soft", "hard"} <= {*plan.kinds}:
        title = "Soft and hard attention, side by side"
        asked = "What does it bring to look everywhere, and what does it cost?"
    return Report(
        title=title,
        question=f"{recipe.task(splits)} {asked}",
        data=splits.describe,
        answer=answer(rows, recipe.METRIC, results["example"]),
        models={kind: recipe.KINDS[kind] for kind in plan.kinds if kind in recipe.KINDS},
        columns=summary.columns(measures, results["error_spread"], results["example"]),
        rows={row["model"]: summary.cells(measures, row) for row in rows},
        curves={row["model"]: seconds_curve(plan, row, len(splits.train)) for row in rows},
        curves_x="seconds of training on one thread",
        curves_y=recipe.METRIC.meaning,
        curves_unit=recipe.METRIC.unit,
        **looking.shown(recipe, looks, failures),
        learning={kind: learned for kind in plan.kinds if (learned := read_learning(plan.run(kind)))},
        mattered={
            kind: figures for kind, each in opened.items() if (figures := explaining.figures(each, looking.SHOWN))
        },
        command=command,
        config=yaml.safe_dump(results["config"], sort_keys=False),
    )


def seconds_curve(plan: Plan, row: Mapping[str, Any], examples: int) -> list[tuple[float, float]]:
    """The error after each epoch, against the time that training takes at the measured rate."""
    curve = looking.curve(plan.run(row["model"]), plan.recipe)
    return [(epoch * examples / row["training"], error) for epoch, error in curve]


def answer(rows: Sequence[Mapping[str, Any]], metric: Metric, noun: str) -> str:
    """What came out, in a sentence.

    >>> error = Metric("valid_error", "min", "share of the images answered wrongly")
    >>> answer([{"model": "soft", "test_error": 0.05}, {"model": "cnn", "test_error": 0.1}], error, "image")
    'Wrong on the test images: soft 5.0 %, cnn 10.0 %.'
    """
    unit = " %" if metric.is_share else ""
    found = [f"{row['model']} {(100 if unit else 1) * row[metric.test]:.1f}{unit}" for row in rows]
    return f"{metric.label} on the test {noun}s: {', '.join(found)}."
