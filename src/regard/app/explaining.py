"""Whether it mattered where a trained model looked: what a recipe says of that, and the figures of a run."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import regard as rg
from regard.app.training.batches import mix, random_state_kept, seed_all
from regard.app.training.errors import Failure
from regard.app.training.run import OpenedRun, open_run

Figures = dict[str, dict[str, float]]
"""{metric: {of which order: its mean}}."""

MEANINGS = {
    "deletion": "area below the answer while what was looked at most is hidden first: small is good",
    "insertion": "area below the answer while what was looked at most is shown first: large is good",
    "comprehensiveness": "what the answer loses without what was looked at most: large is good",
    "sufficiency": "what the answer loses with what was looked at most alone: small is good",
    "pointing": "share of inputs of which the place looked at most is a true one",
    "unread": "the most that an answer changed when what was not read was changed: 0 certifies that it had no effect",
}


class Explained(NamedTuple):
    """What a recipe says of a batch: an answer, by what can be hidden of it, and where the model looked."""

    answer: rg.faithfulness.Answer
    """Which of the K places are kept, bool (B, K), to the probability (B,) of what is said of all of them."""
    importance: Tensor
    """How much was looked at each place, (B, K)."""
    present: Tensor
    """Which places there are, (B, K)."""
    truth: Tensor | None = None
    """Which of them should be looked at, (B, K), where that is known."""
    unread: Callable[[], Tensor] | None = None
    """Of a hard read, the `regard.faithfulness.certificate` (B,) of what it did not read."""


def explained(told: Callable[[Tensor], Tensor], importance: Tensor, present: Tensor, *more: Any) -> Explained:
    """Of a model that tells the probabilities (B, C) of its answers from what is kept, (B, K): the answer is the one it
    gives when all is.

    >>> chances = lambda kept: torch.stack((0.2 * kept[:, 0], 0.5 * kept[:, 1]), -1)
    >>> everything = torch.ones(1, 2).bool()
    >>> explained(chances, torch.ones(1, 2), everything).answer(everything)
    tensor([0.5000])
    """
    said = told(torch.ones_like(present)).argmax(-1, keepdim=True)
    return Explained(lambda kept: told(kept).gather(-1, said).squeeze(-1), importance, present, *more)


def measured(run: Path, recipe: Any, data: str, examples: int) -> Figures:
    """The means of `regard.faithfulness` over the first examples of the test split, of where the model looked, of a
    random order and, where there is a truth, of the order that it would have.

    Raises Failure if the recipe says not where it looked.
    """
    opened = open_run(run, data, recipe)
    opened.model.eval()
    sums: dict[tuple[str, str], list[Tensor]] = {}
    for found in _explained(opened, examples):
        for name, order, values in _figures(found):
            sums.setdefault((name, order), []).append(values)
    means: Figures = {}
    for (name, order), values in sums.items():
        every = torch.cat(values).double()
        if len(every):
            means.setdefault(name, {})[order] = float(every.max() if name == "unread" else every.mean())
    return means


def _explained(opened: OpenedRun, examples: int) -> Iterator[Explained]:
    """What the recipe says, a batch at a time, each with random numbers of its own."""
    split: Any = opened.splits.test
    numbers = torch.arange(min(examples, len(split))).split(opened.config.batch)
    for step, indices in enumerate(numbers):
        with torch.no_grad(), random_state_kept(torch.device("cpu")):
            seed_all(mix(opened.config.seed, "explained", step), torch.device("cpu"))
            found = opened.recipe.explained(opened.model, split.batch(indices, None))
            if found is None:
                raise Failure(f"the recipe {opened.recipe.name} does not say where this model looked: no explained.")
            yield found


def _figures(found: Explained) -> Iterable[tuple[str, str, Tensor]]:
    """(metric, of which order, values) of a batch; what needs a truth only of inputs that have one."""
    answer, importance, present, truth, unread = found
    known = None if truth is None or not truth.any(-1).all() else truth
    for name, orders in rg.faithfulness.faithfulness(answer, importance, present, known).items():
        yield from ((name, order, values) for order, values in orders.items())
    if truth is not None:
        yield "pointing", "given", rg.faithfulness.pointing(importance, truth, present)
        shares = (truth & present).sum(-1) / present.sum(-1)
        yield "pointing", "random", shares[truth.any(-1)]
    if unread is not None:
        yield "unread", "given", unread()
