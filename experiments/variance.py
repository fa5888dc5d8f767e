"""The gradient by every estimator: its bias, its variance, its signal-to-noise, and what it costs.

    regard experiment variance --out experiments/results/variance.json --figure docs/variance.png

Units of one network each look at one of 16 patches of a digit, and what they read is classified (`gradients.model`).
The network is trained a little and frozen; g is an estimate of the gradient of the mean cost of 16 held-out images in
the scores of all units, and g* the true one, by `enumerate_exactly`. All is in float64.

    bias = |E g - g*| / |g*|     variance = E |g - E g|^2     signal-to-noise = |E g| / sqrt(variance)

|E g - g*|^2 and |E g|^2 are estimated without bias, with the jackknife's standard error; `bias_error` is the root of
that of the first, so that the unbiased show a bias of about one of it or less. `variational` is missing since it is a
bound, and not another estimate of the gradient. Baselines, critic and control are fitted to training images.

The table has three units. An estimate of 8 evaluations of the cost, if they are averaged, has a signal-to-noise of 0.34
without a baseline, of 0.52 with a constant, of 0.64 with a learned one, of 0.77 by `leave_one_out`. `rebar` has 3 times
that of no baseline in one estimate, and little more for 8 evaluations, since it takes 5; `relax`, whose control is a
small network, has 0.65 at 3 times the time. Those with a bias have up to 2.85, and are off by 17 to 45%.

It is often said that the variance of REINFORCE grows linearly with the number N of units. For one cost of all units,
with b zero or the expected cost, it is within a tenth the product of two numbers,

    variance = E (cost - b)^2  x  E |d log p|^2,     E |d log p|^2 = sum_n (1 - sum_k p_nk^2)

and linear is the second. The first depends on the cost and on the baseline b (exponents from 1 to 64 units):

- One cost of all units, without a baseline: 0.58 +- 0.09, and 0.96 from 16 on. The cost falls with the first units;
  once it does not, the variance is linear. With `leave_one_out` it is -0.21 +- 0.04, or -1.21 a unit: the network reads
  the mean of the units, so the cost of more of them varies less, and that outweighs their number.
- A sum of one cost a unit: 2.83 +- 0.05 without a baseline, for E cost^2 grows like N^2; 1.91 +- 0.04 with
  `leave_one_out`, for the variance of the cost grows like N; 0.94 +- 0.03 where each unit pays its own cost alone.
- What matters for learning is the variance over the signal |g*|^2. It grows like N^1.61 and N^1.82 without a baseline,
  like N^0.82 and N^0.91 with `leave_one_out`, and not at all (-0.07 +- 0.03) where each unit pays its own.

So linear is about right of the variance over the signal, with a good baseline. Without one it is worse, and
with units that pay for themselves there is no growth.

Draws: the variance falls like 1 / S; that of `leave_one_out` is 2.0 times that of the expected cost as the baseline for
2 draws, 1.3 times for 4, 1.2 for 8, as S / (S - 1) says; for that alone its exponent is -1.18.

Steps: the units look one after another, and the choice of a step does not depend on those before. "At the end" is the
one cost of all units. With a cost at every step the variance has the exponent 2.51 +- 0.05 if each step pays for the
whole path, and 2.18 +- 0.10 if it pays what is `to_go`, a third of the former at 32 steps. The critic takes three
quarters of that, yet 2.17 +- 0.15 is no slower growth; it does not know the label, and was fitted for seconds.
`leave_one_out`, which compares draws for one image and label, has 1.56 +- 0.05. A trace of 0.5 has 1.08 +- 0.05, but
its |E g|^2 at 32 steps is less than half of that of the others: it estimates something else.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gradients.model import (
    Loss,
    Network,
    Scene,
    actor_critic,
    critic,
    estimators,
    exactly,
    leave_one_out,
    nothing,
    reinforce,
    trained,
)
from gradients.report import figure, show
from torch import Tensor

import regard as rg
from regard.app.data import Split, digits
from regard.app.results import add_rounds, give, machine, parser, rounded, save_figure
from regard.app.timing import interleave

UNITS, BATCH = 3, 16
"""How many units look in the table, and at how many images: all 16^3 events of each are enumerated."""
BUDGET = 8
"""Evaluations of the cost that each estimator is given when they are compared."""
ELEMENTS = 2**18
"""How many scores are weighed at once: what bounds the memory, and with the rounds the time."""
GROWING = {"units": (1, 2, 4, 8, 16, 32, 64), "draws": (1, 2, 4, 8, 16, 32, 64), "steps": (1, 2, 4, 8, 16, 32)}

Case = tuple[Loss, int]
"""A loss, and how many draws it takes."""


@dataclass(frozen=True)
class Moments:
    """Of many estimates: the mean of each round (rounds, B N K), and the variance of a single estimate."""

    means: Tensor
    variance: float


def moments(scene: Scene, loss: Loss, rounds: int, draws: float = 1) -> Moments:
    """The moments of the gradient in the scores. The more draws an estimate takes, the fewer estimates are made."""
    count = max(1, int(ELEMENTS / (scene.scores.numel() * draws)))
    origin = gradients(scene, loss, 1)  # subtracted, so that what does not vary has a variance of exactly zero
    estimates = (gradients(scene, loss, count) - origin for _ in range(rounds))
    means, squares = zip(*((each.mean(0), each.square().sum().item()) for each in estimates), strict=True)
    middle, total = torch.stack(means), count * rounds
    variance = (sum(squares) - total * middle.mean(0).square().sum().item()) / (total - 1)
    return Moments(middle + origin, variance)


def gradients(scene: Scene, loss: Loss, count: int) -> Tensor:
    """Independent estimates of the gradient of the batch's mean cost in the scores, (count, B N K)."""
    scores = scene.scores.expand(count, -1, -1, -1).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(scores).sum() / len(scene.scores), scores)
    return gradient.flatten(1)


def squared_length(means: Tensor) -> tuple[float, float]:
    """The square of the length of what rounds (rounds, D) estimate, without bias, and its standard error.

    The square of their mean is too long by its noise; the products of two different rounds are not. The error is the
    jackknife's.
    """
    count, total, squares = len(means), means.sum(0), means.square().sum(-1)
    square = (total.square().sum() - squares.sum()) / (count * (count - 1))
    without = ((total - means).square().sum(-1) - (squares.sum() - squares)) / ((count - 1) * (count - 2))
    error = ((without - without.mean()).square().sum() * (count - 1) / count).sqrt()
    return square.item(), error.item()


def table(network: Network, train: Split, test: Split, rounds: int) -> list[dict[str, Any]]:
    """A row for each estimator."""
    units = torch.arange(UNITS)
    scene = Scene(network, test, torch.arange(BATCH), units)
    truth = gradients(scene, partial(exactly, scene), 1)
    known = list(estimators(scene, network, train, units))
    rows = [_row(scene, truth, rounds, *each) for each in known]
    with torch.random.fork_rng():  # how often they are timed must not change what is drawn afterwards
        times = interleave([partial(gradients, scene, loss, 1) for *_, loss in known], rounds, round_ms=10)
    return [row | {"ms": statistics.median(ms)} for row, ms in zip(rows, times, strict=True)]


def _row(scene: Scene, truth: Tensor, rounds: int, name: str, unbiased: bool, loss: Loss) -> dict[str, Any]:
    scene.paid = 0
    gradients(scene, loss, 1)
    evaluations = scene.paid / len(scene.scores)
    found = moments(scene, loss, rounds, draws=evaluations)
    (missed, error), (signal, _) = squared_length(found.means - truth), squared_length(found.means)
    ratio = math.sqrt(max(signal, 0) / found.variance) if found.variance else None
    return {
        "estimator": name,
        "unbiased": unbiased,
        "bias": math.sqrt(max(missed, 0)) / truth.norm().item(),
        "bias_error": math.sqrt(error) / truth.norm().item(),
        "variance": found.variance,
        "signal_to_noise": ratio,
        "signal_to_noise_for_budget": ratio and ratio * math.sqrt(BUDGET / evaluations),
        "cost_evaluations": evaluations,
    }


def with_units(network: Network, train: Split, test: Split, count: int) -> tuple[Scene, list[dict[str, Case]]]:
    """The one cost of all units; and as many costs as units, of which a unit pays all or its own."""
    scene = Scene(network, test, torch.arange(BATCH), torch.arange(count))

    def all_costs(context: Tensor) -> Tensor:
        return scene.apart(context).sum(-1)

    one: dict[str, Case] = {
        "one cost, no baseline": (partial(reinforce, scene, scene.together, nothing), 1),
        "one cost, leave_one_out": (partial(leave_one_out, scene, scene.together, 4), 4),
    }
    many: dict[str, Case] = {
        "sum of costs, no baseline": (partial(reinforce, scene, all_costs, nothing), 1),
        "sum of costs, leave_one_out": (partial(leave_one_out, scene, all_costs, 4), 4),
        "sum of costs, each its own": (partial(reinforce, scene, scene.apart, nothing), 1),
    }
    return scene, [one, many]


def with_draws(network: Network, train: Split, test: Split, count: int) -> tuple[Scene, list[dict[str, Case]]]:
    """The mean of independent draws: without a baseline, with the expected cost for one, and `leave_one_out`."""
    scene = Scene(network, test, torch.arange(BATCH), torch.arange(UNITS))
    expected = exactly(scene, scene.scores.unsqueeze(0))

    def mean_of(predict: Callable[[Tensor], float | Tensor]) -> Loss:
        return lambda scores: reinforce(scene, scene.together, predict, scores.expand(count, *scores.shape)).mean(0)

    cases: dict[str, Case] = {
        "no baseline": (mean_of(nothing), count),
        "expected cost": (mean_of(expected.expand_as), count),
    }
    if count > 1:
        cases["leave_one_out"] = partial(leave_one_out, scene, scene.together, count), count
    return scene, [cases]


def with_steps(network: Network, train: Split, test: Split, count: int) -> tuple[Scene, list[dict[str, Case]]]:
    """A cost at every step, of which a step pays all or those to come; the one at the end; and a trace with a bias."""
    units = torch.arange(count)
    scene = Scene(network, test, torch.arange(BATCH), units)
    always, last = (critic(network, train, units, every_step) for every_step in (True, False))

    def whole(context: Tensor) -> Tensor:
        return scene.running(context).sum(-1)

    def to_come(context: Tensor) -> Tensor:
        return rg.to_go(scene.running(context))

    every: dict[str, Case] = {
        "every step, whole path": (partial(reinforce, scene, whole, nothing), 1),
        "every step, to_go": (partial(reinforce, scene, to_come, nothing), 1),
        "every step, to_go, leave_one_out": (partial(leave_one_out, scene, to_come, 4), 4),
        "every step, actor_critic": (partial(actor_critic, scene, scene.running, always, 1.0), 1),
    }
    end: dict[str, Case] = {
        "at the end, actor_critic": (partial(actor_critic, scene, scene.together, last, 1.0), 1),
        "at the end, leave_one_out": (partial(leave_one_out, scene, scene.together, 4), 4),
    }
    biased: dict[str, Case] = {
        "every step, trace 0.5, biased": (partial(actor_critic, scene, scene.running, always, 0.5), 1),
    }
    return scene, [every, end, biased]


def growth(network: Network, train: Split, test: Split, rounds: int) -> list[dict[str, Any]]:
    """A row for each case of what may grow."""
    cases = {"units": with_units, "draws": with_draws, "steps": with_steps}
    rows: dict[tuple[str, str], list[tuple]] = {}
    for axis, values in GROWING.items():
        for value in values:
            scene, groups = cases[axis](network, train, test, value)
            for group in groups:
                found = {case: moments(scene, loss, rounds, draws) for case, (loss, draws) in group.items()}
                # All cases of a group estimate one gradient: the one that knows its length best says it.
                signal = min((squared_length(each.means) for each in found.values()), key=lambda pair: pair[1])
                for case, each in found.items():
                    rows.setdefault((axis, case), []).append((value, each.variance, *signal))
    return [_grown(*key, *zip(*points, strict=True)) for key, points in rows.items()]


def _grown(axis: str, case: str, values: tuple, variance: tuple, signal: tuple, error: tuple) -> dict[str, Any]:
    relative = [noise / max(length, 1e-300) for noise, length in zip(variance, signal, strict=True)]
    names = ("exponent", "exponent_error", "relative_exponent", "relative_exponent_error", "last_exponent")
    last, _ = exponent(values[-3:], variance[-3:])
    slopes = dict(zip(names, (*exponent(values, variance), *exponent(values, relative), last), strict=True))
    lists = {"values": values, "variance": variance, "signal": signal, "signal_error": error}
    return {"with": axis, "case": case} | {name: list(each) for name, each in lists.items()} | slopes


def exponent(x: Any, y: Any) -> tuple[float, float]:
    """The slope of log y on log x, and its standard error from how far the points lie off the line."""
    x, y = ([math.log(each) for each in values] for values in (x, y))
    slope, intercept = statistics.linear_regression(x, y)
    off = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    return slope, math.sqrt(off / max(len(x) - 2, 1) / spread)


def measure(rounds: int) -> dict[str, Any]:
    """Everything, as it is printed as JSON."""
    torch.manual_seed(0)
    splits = digits(canvas=28, clutter=0)
    parts = trained(splits.train), splits.train, splits.valid, rounds
    rows, grown = table(*parts), growth(*parts)
    return {"name": "variance", "machine": machine(), "budget": BUDGET, "rows": rows, "growth": grown}


def main() -> None:
    """The command line."""
    flags = parser("variance", "The gradient by every estimator.", figure=True)
    add_rounds(flags, usual=40, least=3)
    options = flags.parse_args()
    torch.set_num_threads(1)
    results = rounded(measure(options.rounds))
    give(results, options, lambda: show(results))
    if options.figure:
        save_figure(figure(results), options.figure)


if __name__ == "__main__":
    main()
