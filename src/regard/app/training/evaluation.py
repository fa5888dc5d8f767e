"""What a model is worth: the one evaluator, of training, `regard evaluate`, reports, comparisons and experiments.

A split is evaluated in the same batches, each with the same random numbers, whoever asks and with however many
processes: chance is a function of the configuration's seed and the number of the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from regard.app.training.batches import Batch, evaluation_batches, loaded, mix, random_state_kept, seed_all
from regard.app.training.run import OpenedRun, open_run
from regard.recipes.base import Recipe

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from regard.app.training.fabric import Fit

Values = dict[str, Tensor]
Evaluate = Callable[[dict[str, Tensor]], Values]


def evaluate(
    run: str | Path,
    split: str = "test",
    fit: "Fit | None" = None,
    recipe: Recipe | ModuleType | None = None,
    data: str = "",
) -> dict[str, float]:
    """The best model's averages over a split, train, valid or test: {"test_error": 0.05}; of other data than the run's
    own, if they are given.

    The recipe is the one that config.yaml names, unless one is given. Raises Failure if there is no such run, or
    nothing in it to load.
    """
    from regard.app.training.fabric import Fit, Step, launched

    fit = fit or Fit()
    with launched(fit) as fabric:
        opened = open_run(run, data, recipe)
        step = fabric.setup_module(Step(opened.recipe, opened.model))
        means = averages(opened, getattr(opened.splits, split), partial(step, "evaluate"), fabric, fit.workers)
    return {f"{split}_{name}": value for name, value in means.items()}


def averages(
    opened: OpenedRun,
    split: Any,
    evaluate: Evaluate | None = None,
    fabric: "Fabric | None" = None,
    workers: int = 0,
) -> dict[str, float]:
    """The averages over a split of what the recipe says of each example, the same for any number of processes."""
    batches = batches_of(opened, split)
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    mine = range(rank, rank + -(-len(batches) // world) * world, world)  # as many for each: all compute in step
    shares = [batches[min(number, len(batches) - 1)] for number in mine]
    device = fabric.device if fabric else torch.device("cpu")
    sums: dict[str, Tensor] = {}
    for number, values in zip(mine, _evaluated(opened, split, shares, evaluate, device, workers), strict=True):
        for name, each in values.items():
            table = sums.setdefault(name, torch.zeros(len(batches), 2, dtype=torch.float64))
            if number < len(batches):
                table[number] = torch.tensor([each.cpu().double().sum(), len(each)])
    if fabric and world > 1:
        sums = {name: _added(fabric, table) for name, table in sums.items()}
    return opened.recipe.conclude({name: table.sum(0).tolist() for name, table in sums.items()})


def _added(fabric: "Fabric", table: Tensor) -> Tensor:
    """The sum of the tables of all processes."""
    return cast(Tensor, fabric.all_reduce(table.to(fabric.device), reduce_op="sum")).cpu()


def results(opened: OpenedRun, split: Any) -> Iterator[tuple[Tensor, Values]]:
    """The indices of the examples and what the recipe says of each, a batch at a time, on the CPU; not in the split's
    order, where that is evaluated by length."""
    batches = batches_of(opened, split)
    found = _evaluated(opened, split, batches, None, torch.device("cpu"), 0)
    for batch, values in zip(batches, found, strict=True):
        yield batch.indices, values


def batches_of(opened: OpenedRun, split: Any) -> list[Batch]:
    """The batches in which a split is evaluated."""
    return evaluation_batches(len(split), opened.config.batch, opened.config.seed, getattr(split, "lengths", None))


def _evaluated(
    opened: OpenedRun,
    split: Any,
    batches: Sequence[Batch],
    evaluate: Evaluate | None,
    device: torch.device,
    workers: int,
) -> Iterator[Values]:
    """What the recipe says of the examples of each batch."""
    opened.model.eval()
    evaluate = evaluate or partial(opened.recipe.evaluate, opened.model)
    for batch, seed in loaded(split, batches, fresh=False, workers=workers):
        with torch.no_grad(), random_state_kept(device):
            seed_all(mix(seed, "model"), device)
            values = evaluate({name: each.to(device) for name, each in batch.items()})
        yield values
