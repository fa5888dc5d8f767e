"""Whether it mattered where a trained model looked: what a recipe says of that, and the figures of a run."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import regard as rg
from regard.app.timing import one_thread
from regard.app.training.batches import mix, random_state_kept, seed_all
from regard.app.training.errors import Failure
from regard.app.training.run import OpenedRun, open_run

Figures = dict[str, dict[str, float]]
"""{metric: {of which order: its mean}}; `tau` is how well the metric itself orders what is known."""
Value = tuple[str, str, Tensor]
"""A metric, of which order, and its values of a batch."""

MEANINGS = {
    "deletion": "area below the answer while what was looked at most is hidden first: small is good",
    "insertion": "area below the answer while what was looked at most is shown first: large is good",
    "comprehensiveness": "what the answer loses without what was looked at most: large is good",
    "sufficiency": "what the answer loses with what was looked at most alone: small is good",
    "pointing": "share of inputs of which the place looked at most is a true one",
    "permutation": "how far the answer moves when the weights of attention are put into another order: 0 if no matter",
    "agreement": "rank correlation with the size of integrated gradients, another opinion: at most 1",
    "unread": "the most that an answer changed when what was not read was changed: 0 certifies that it had no effect",
}

BETTER = {"deletion": -1, "insertion": 1, "comprehensiveness": 1, "sufficiency": -1}
"""Whether more of a metric is better, or less."""
GRADES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The share of the places of an order that stand where the truth has them, the others by chance."""


class Explained(NamedTuple):
    """What a recipe says of a batch: B answers, by what can be hidden of what each was told from, and where the model
    looked. A model that writes words gives one answer a word."""

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
    permuted: Callable[[], Tensor] | None = None
    """The `regard.faithfulness.permutation` (B,) of the weights of attention, where an answer is told from these."""
    gradual: bool = False
    """Whether the answer takes any shares of the places, float (B, K), and has a gradient: so it does where what is
    hidden is multiplied by zero."""


def explained(
    told: Callable[[Tensor], Tensor], importance: Tensor, present: Tensor, *more: Any, **others: Any
) -> Explained:
    """Of a model that tells the probabilities (B, C) of its answers from what is kept, (B, K): the answer is the one it
    gives when all is.

    >>> chances = lambda kept: torch.stack((0.2 * kept[:, 0], 0.5 * kept[:, 1]), -1)
    >>> everything = torch.ones(1, 2).bool()
    >>> explained(chances, torch.ones(1, 2), everything).answer(everything)
    tensor([0.5000])
    """
    said = told(torch.ones_like(present)).argmax(-1, keepdim=True)
    return Explained(lambda kept: told(kept).gather(-1, said).squeeze(-1), importance, present, *more, **others)


def measured(run: Path, recipe: Any, data: str, examples: int) -> Figures:
    """The `figures` of a run, and `tau`: how well each metric orders what is known, where there is a truth.

    Raises Failure if the recipe says not where it looked.
    """
    opened = open_run(run, data, recipe)
    if not (means := _means(opened, examples, lambda found: chain(_figures(found), _trust(found)))):
        raise Failure(f"the recipe {opened.recipe.name} does not say where this model looked: no explained.")
    return means


def figures(opened: OpenedRun, examples: int) -> Figures:
    """The means of `regard.faithfulness` over the first examples of the test split, of where the model looked, of a
    random order and, where there is a truth, of the order that it would have; none of a model that says not where."""
    return _means(opened, examples, _figures)


def _means(opened: OpenedRun, examples: int, values_of: Callable[[Explained], Iterator[Value]]) -> Figures:
    opened.model.eval()
    sums: dict[tuple[str, str], list[Tensor]] = {}
    with one_thread():  # many small steps, which several threads slow down on a busy machine
        for found in _explained(opened, examples):
            for name, order, values in values_of(found):
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
                return
            yield found


def _known(found: Explained) -> Tensor | None:
    """The truth, where every input of the batch has one."""
    return None if found.truth is None or not found.truth.any(-1).all() else found.truth


def _figures(found: Explained) -> Iterator[Value]:
    """Of a batch; what needs a truth only of inputs that have one."""
    answer, importance, present, truth = found[:4]
    if not len(importance):
        return
    known = _known(found)
    for name, orders in rg.faithfulness.faithfulness(answer, importance, present, known).items():
        yield from ((name, order, values) for order, values in orders.items())
    if truth is not None:
        yield "pointing", "given", rg.faithfulness.pointing(importance, truth, present)
        shares = (truth & present).sum(-1) / present.sum(-1)
        yield "pointing", "random", shares[truth.any(-1)]
    if found.permuted is not None:
        yield "permutation", "given", found.permuted()
    if found.gradual:
        other = rg.faithfulness.integrated_gradients(answer, present.float()).abs()
        orders = {"given": importance, "random": torch.rand_like(importance)}
        orders |= {} if known is None else {"oracle": known.float()}
        for order, each in orders.items():
            yield "agreement", order, rg.faithfulness.rank_correlation(each, other, present)
    if found.unread is not None:
        yield "unread", "given", found.unread()


def _trust(found: Explained) -> Iterator[Value]:
    """Whether each metric can be trusted here: its rank correlation with the truth over orders that have ever more of
    the truth, (B,)."""
    truth = _known(found)
    if truth is None or not len(truth):
        return
    chance = torch.rand(truth.shape, device=truth.device)
    orders = [torch.where(torch.rand_like(chance) < grade, truth + chance, 2 * chance) for grade in GRADES]
    grades = torch.tensor(GRADES, device=truth.device).expand(len(truth), -1)
    for name, metric in rg.faithfulness.METRICS.items():
        values = torch.stack([metric(found.answer, each, found.present) for each in orders], -1)  # (B, grades)
        yield name, "tau", rg.faithfulness.rank_correlation(BETTER[name] * values, grades)
