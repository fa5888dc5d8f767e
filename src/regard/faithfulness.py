"""Did it matter where a model looked? Curves, shares and tests that ask the model itself, for any model and input.

An **answer** is a function of which of the K places of B inputs are kept, bool (B, K), to the probability (B,) of what
the model says of them when nothing is hidden; `hiding` makes one of a model. An **importance** (B, K) says how much was
looked at each place; places that are absent, padding, stand False in `present` (B, K) and count nowhere.

One number says little by itself: `faithfulness` gives each beside that of a random order and, where the truth is known,
of the order that the truth would have.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_leaves

Answer = Callable[[Tensor], Tensor]
"""Which places are kept, bool (B, K), to the probability of what is said of all of them, (B,)."""
Present = Bool[Tensor, "B K"] | None

SHARES = 0.01, 0.05, 0.1, 0.2, 0.5
"""Of the places, those of DeYoung et al. 2020, section 4.2."""


class Curve(NamedTuple):
    """The probability of the answer while the most important places are hidden, or shown."""

    values: Float[Tensor, "B steps"]
    """After each equal share of the places, from none of them to all."""

    @property
    def area(self) -> Float[Tensor, " B"]:
        """Below the curve, by the trapezoidal rule, where all the places together are one wide."""
        return torch.trapezoid(self.values, dx=1 / (self.values.shape[-1] - 1))


def hiding(
    model: Callable[[Tensor], Tensor], inputs: Tensor, instead: Tensor | float | int = 0
) -> Callable[[Bool[Tensor, "B K"]], Float[Tensor, " B"]]:
    """The answer of a model, inputs (B, K, ...) to (B,), that has `instead` in the place of what is hidden.

    >>> hiding(lambda words: words.sum(-1), torch.tensor([[1.0, 2.0]]))(torch.tensor([[True, False]]))
    tensor([1.])
    """

    def answer(kept: Tensor) -> Tensor:
        kept = kept.reshape(*kept.shape, *(1 for _ in inputs.shape[2:]))
        return model(torch.where(kept, inputs, torch.as_tensor(instead, dtype=inputs.dtype, device=inputs.device)))

    return answer


def ranks(importance: Float[Tensor, "B K"], present: Present = None) -> Int[Tensor, "B K"]:
    """The place of each in the order of importance, 0 being the most important, those that are absent last; of equals
    the first comes first.

    >>> ranks(torch.tensor([[0.1, 0.7, 0.2]]))
    tensor([[2, 0, 1]])
    """
    scores = importance if present is None else importance.masked_fill(~present, -math.inf)
    return scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)


@torch.no_grad()
def deletion(answer: Answer, importance: Float[Tensor, "B K"], present: Present = None, steps: int = 10) -> Curve:
    """The answer while places are hidden, the most important first (Petsiuk et al. 2018, "RISE", section 4.3): the
    sooner it falls, and the smaller the area, the more it rests on them. Calls the answer steps + 1 times.

    >>> answer = hiding(lambda words: words.sum(-1), torch.tensor([[0.75, 0.25]]))
    >>> curve = deletion(answer, torch.tensor([[1.0, 0.0]]), steps=2)
    >>> curve.values, curve.area
    (tensor([[1.0000, 0.2500, 0.0000]]), tensor([0.3750]))
    """
    return Curve(_told(answer, importance, present, [n / steps for n in range(steps + 1)], hidden=True))


@torch.no_grad()
def insertion(answer: Answer, importance: Float[Tensor, "B K"], present: Present = None, steps: int = 10) -> Curve:
    """The answer while places are shown, the most important first (Petsiuk et al. 2018, "RISE", section 4.3): the
    larger the area, the more they alone are enough. Calls the answer steps + 1 times.

    >>> answer = hiding(lambda words: words.sum(-1), torch.tensor([[0.75, 0.25]]))
    >>> insertion(answer, torch.tensor([[1.0, 0.0]]), steps=2).values
    tensor([[0.0000, 0.7500, 1.0000]])
    """
    return Curve(_told(answer, importance, present, [n / steps for n in range(steps + 1)], hidden=False))


@torch.no_grad()
def comprehensiveness(
    answer: Answer, importance: Float[Tensor, "B K"], present: Present = None, shares: Sequence[float] = SHARES
) -> Float[Tensor, " B"]:
    """By how much the probability of the answer is less without the most important places, p(all) - p(all but those),
    averaged over shares of them (DeYoung et al. 2020, "ERASER", equations 1 and 3): the larger, the better.

    >>> answer = hiding(lambda words: words.sum(-1), torch.tensor([[0.75, 0.25]]))
    >>> comprehensiveness(answer, torch.tensor([[1.0, 0.0]]), shares=[0.5])
    tensor([0.7500])
    """
    return _lost(answer, importance, present, shares, hidden=True)


@torch.no_grad()
def sufficiency(
    answer: Answer, importance: Float[Tensor, "B K"], present: Present = None, shares: Sequence[float] = SHARES
) -> Float[Tensor, " B"]:
    """By how much the probability of the answer is less with the most important places alone, p(all) - p(those),
    averaged over shares of them (DeYoung et al. 2020, "ERASER", equations 2 and 3): the smaller, the better.

    >>> answer = hiding(lambda words: words.sum(-1), torch.tensor([[0.75, 0.25]]))
    >>> sufficiency(answer, torch.tensor([[1.0, 0.0]]), shares=[0.5])
    tensor([0.2500])
    """
    return _lost(answer, importance, present, shares, hidden=False)


METRICS: dict[str, Callable[[Answer, Tensor, Present], Tensor]] = {
    "deletion": lambda answer, importance, present: deletion(answer, importance, present).area,
    "insertion": lambda answer, importance, present: insertion(answer, importance, present).area,
    "comprehensiveness": comprehensiveness,
    "sufficiency": sufficiency,
}
"""What `faithfulness` gives."""


def faithfulness(
    answer: Answer,
    importance: Float[Tensor, "B K"],
    present: Present = None,
    truth: Bool[Tensor, "B K"] | None = None,
    draws: int = 5,
) -> dict[str, dict[str, Float[Tensor, " B"]]]:
    """Each of `METRICS` by the importance that is given, by a random order (the mean over some draws), and where the
    truth is given, which places are to be looked at, by the order `oracle` that has these first, by chance otherwise.

    >>> answer = hiding(lambda words: words.sum(-1), torch.tensor([[0.75, 0.25, 0.0]]))
    >>> truth = torch.tensor([[True, False, False]])
    >>> found = faithfulness(answer, torch.tensor([[0.5, 0.3, 0.2]]), truth=truth)
    >>> list(found), list(found["deletion"])
    (['deletion', 'insertion', 'comprehensiveness', 'sufficiency'], ['given', 'random', 'oracle'])
    """
    chance = [torch.rand_like(importance) for _ in range(draws)]
    orders = {"given": [importance], "random": chance}
    if truth is not None:
        orders["oracle"] = [truth + each for each in chance]
    return {
        name: {
            which: torch.stack([metric(answer, order, present) for order in several]).mean(0)
            for which, several in orders.items()
        }
        for name, metric in METRICS.items()
    }


def pointing(
    importance: Float[Tensor, "B K"], truth: Bool[Tensor, "B K"], present: Present = None
) -> Float[Tensor, " M"]:
    """Whether the most important place is a true one, 1 or 0, of the M inputs that have one: the pointing game (Zhang
    et al. 2018, "Top-down neural attention by excitation backprop", section 4.2). By chance it is the share of the
    places that are true.

    >>> pointing(torch.tensor([[0.1, 0.9], [0.6, 0.4]]), torch.tensor([[False, True], [False, False]]))
    tensor([1.])
    """
    first = (ranks(importance, present) == 0) & truth
    return first.any(-1)[truth.any(-1)].float()


@torch.no_grad()
def permutation(
    predict: Callable[[Tensor], Tensor],
    weights: Float[Tensor, "B ... K"],
    present: Bool[Tensor, "B ... K"] | None = None,
    draws: int = 100,
) -> Float[Tensor, " B"]:
    """How much an answer changes when the weights of attention are put into another order: the median over draws of
    the total variation distance, |p - p'|_1 / 2 (Jain and Wallace 2019, "Attention is not explanation", algorithm 1).
    Near zero, it did not matter where the model looked. Each row of weights is permuted by itself, among the places
    that are present. Calls `predict`, weights (B, ..., K) to probabilities (B, C), draws + 1 times.

    >>> values = torch.eye(2)
    >>> permutation(lambda weights: weights @ values, torch.tensor([[1.0, 0.0], [0.5, 0.5]])).sum() <= 1
    tensor(True)
    """
    there = torch.ones_like(weights).bool() if present is None else present.expand(weights.shape)
    usual = predict(weights)
    changes = [(predict(_permuted(weights, there)) - usual).abs().sum(-1) / 2 for _ in range(draws)]
    return torch.stack(changes).median(0).values


def integrated_gradients(
    model: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "B K ..."],
    baseline: Tensor | float = 0.0,
    steps: int = 50,
) -> Float[Tensor, "B K"]:
    """What each place adds to the output (B,) of a model on the straight way from a baseline to the inputs, summed over
    what is in a place: (x - x') times the mean gradient on the way (Sundararajan et al. 2017, equation 3), at the
    middles of equal steps. Over the places they sum to model(x) - model(x'), as nearly as the steps are fine.

    >>> integrated_gradients(lambda words: words.square().sum(-1), torch.tensor([[1.0, 2.0]]))
    tensor([[1.0000, 4.0000]])
    """
    start = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand(inputs.shape)
    total = torch.zeros_like(inputs)
    for n in range(steps):
        point = start.lerp(inputs, (n + 0.5) / steps).detach().requires_grad_()
        with torch.enable_grad():
            total += torch.autograd.grad(model(point).sum(), point)[0] / steps
    return ((inputs - start) * total).flatten(2).sum(-1) if inputs.dim() > 2 else (inputs - start) * total


def rank_correlation(
    first: Float[Tensor, "B K"], second: Float[Tensor, "B K"], present: Present = None
) -> Float[Tensor, " B"]:
    """Kendall's tau-b of two importances, from -1 to 1: of the pairs of places, those that both have in the same order
    less those that they have otherwise, over the mean number that either has in any (Kendall 1945); 0 where one has all
    places alike. Time O(B K log^2 K), memory O(B K).

    >>> rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([0.3333])
    """
    there = torch.ones_like(first).bool() if present is None else present
    one, two = (each.masked_fill(~there, math.inf) for each in (first, second))
    one, two = (torch.searchsorted(each.sort(-1).values, each) for each in (one, two))  # (B, K), alike where tied
    both = one * one.shape[-1] + two
    count = there.sum(-1)
    pairs, *ties = count * (count - 1) // 2, *(_alike(each, there) for each in (one, two, both))
    apart = pairs - ties[0] - ties[1] + ties[2] - 2 * _inversions(two.gather(-1, both.argsort(-1)))
    norm = ((pairs - ties[0]).double() * (pairs - ties[1])).sqrt()
    return (apart / norm.clamp(min=1)).to(first.dtype)


@torch.no_grad()
def certificate(
    model: Callable[[Tensor], Any], inputs: Tensor, read: Bool[Tensor, "B K"], draws: int = 4
) -> Float[Tensor, " B"]:
    """By how much the outputs of a model, tensors (B, ...), change at most when places that were not read hold
    something else: zero certifies that they had no effect. What a soft read weighs at all, it has read.

    In each draw every place of inputs (B, K, ...) that is not `read` holds what another of them held; of floats, in
    every other draw, numbers from as wide a range as the inputs' own. The model has the same random numbers each time.

    >>> inputs, read = torch.rand(3, 4), torch.tensor([True, False, False, True]).expand(3, 4)
    >>> certificate(lambda each: each[:, 0] + each[:, 3], inputs, read)
    tensor([0., 0., 0.])
    >>> (certificate(lambda each: each.mean(-1), inputs, read) > 0).all()
    tensor(True)
    """
    usual, found = _outputs(model, inputs), inputs.new_zeros(len(inputs), dtype=torch.float32)
    for n in range(draws):
        other = inputs.clone()
        other[~read] = _others(inputs[~read], inputs, wild=n % 2 == 1)
        for before, after in zip(usual, _outputs(model, other), strict=True):
            change = (after.double() - before.double()).abs().nan_to_num(nan=math.inf)
            found = torch.maximum(found, change.flatten(1).amax(-1).float() if change.dim() > 1 else change.float())
    return found


def _told(answer: Answer, importance: Tensor, present: Present, shares: Sequence[float], hidden: bool) -> Tensor:
    """The answers, (B, shares), when so large a share of the most important places is hidden, or alone shown."""
    order = ranks(importance, present)
    there = torch.ones_like(importance).bool() if present is None else present
    found = []
    for share in shares:
        most = order < (share * there.sum(-1, keepdim=True).double() - 1e-9).ceil()
        found.append(answer(there & ~most if hidden else there & most))
    return torch.stack(found, -1)


def _lost(answer: Answer, importance: Tensor, present: Present, shares: Sequence[float], hidden: bool) -> Tensor:
    there = torch.ones_like(importance).bool() if present is None else present
    return answer(there) - _told(answer, importance, present, shares, hidden).mean(-1)


def _permuted(weights: Tensor, there: Tensor) -> Tensor:
    """Each row in a random order, among the places that are there."""
    places = torch.arange(weights.shape[-1], device=weights.device).expand(weights.shape)
    behind = torch.where(there, places, weights.shape[-1] + places)
    drawn = torch.rand_like(weights).masked_fill(~there, 2.0).argsort(-1)  # those that are there first, by chance
    return torch.empty_like(weights).scatter(-1, behind.argsort(-1), weights.gather(-1, drawn))


def _alike(places: Tensor, there: Tensor) -> Tensor:
    """How many pairs of those that are there are equal, (B,)."""
    order = places.sort(-1).values
    each = torch.searchsorted(order, places, right=True) - torch.searchsorted(order, places) - 1
    return (each * there).sum(-1) // 2


def _inversions(numbers: Tensor) -> Tensor:
    """How many pairs of numbers (B, K) below K stand in the wrong order, (B,): the two differ first in one bit, which
    the former has."""
    found = torch.zeros_like(numbers[:, 0])
    for bit in reversed(range(numbers.shape[-1].bit_length())):
        alike, has = numbers >> (bit + 1), (numbers >> bit) & 1  # sorted by what is above the bit
        before = has.cumsum(-1) - has
        before = before - before.gather(-1, torch.searchsorted(alike, alike))  # of those that are alike above it
        found += (before * (1 - has)).sum(-1)
        numbers = numbers.gather(-1, (numbers >> bit).argsort(dim=-1, stable=True))
    return found


def _others(held: Tensor, inputs: Tensor, wild: bool) -> Tensor:
    """For N places, what others of them hold, or numbers from the range of all inputs."""
    if wild and inputs.is_floating_point():
        return inputs.amin() + (inputs.amax() - inputs.amin()) * torch.rand_like(held)
    return held[torch.randint(len(held), (len(held),), device=held.device)] if len(held) else held


def _outputs(model: Callable[[Tensor], Any], inputs: Tensor) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [each for each in tree_leaves(model(inputs)) if isinstance(each, Tensor)]
