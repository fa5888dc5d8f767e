"""What a model costs: images a second, timed in turn with the others on one thread, and multiply-adds."""

import statistics
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from regard.recipes.base import Recipe

Step = Callable[[], object]


def rates(steps: Mapping[str, Step], images: int, seconds: float) -> dict[str, float]:
    """Images a second of each step, which does `images` of them: all steps in turn, round after round; the medians.

    At least three rounds, and as many as fit into `seconds` for each step, after one that is not counted.

    >>> fast, slow = rates({"a": lambda: None, "b": lambda: time.sleep(0.01)}, images=10, seconds=0.02).values()
    >>> slow < 1000 < fast
    True
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    _round(steps)
    start = time.perf_counter()
    while len(next(iter(times.values()), "no steps")) < 3 or time.perf_counter() - start < seconds * len(steps):
        for name, took in _round(steps).items():
            times[name].append(took)
    return {name: images / statistics.median(took) for name, took in times.items()}


def _round(steps: Mapping[str, Step]) -> dict[str, float]:
    """The seconds that each step takes."""
    marks = [time.perf_counter()]
    for step in steps.values():
        step()
        marks.append(time.perf_counter())
    return {name: end - start for name, start, end in zip(steps, marks, marks[1:], strict=False)}


def inference(recipe: Recipe, model: nn.Module, batch: dict[str, Tensor]) -> Step:
    """A step that answers a batch."""
    model.eval()
    return torch.no_grad()(lambda: recipe.evaluate(model, batch))


def training(recipe: Recipe, config: Any, model: nn.Module, batch: dict[str, Tensor]) -> Step:
    """A step that learns from a batch, on a copy of the model."""
    model = deepcopy(model).train()
    optimizer, _ = recipe.optimiser(model, config, steps=1000)

    def step() -> None:
        optimizer.zero_grad()
        recipe.loss(model, batch)[0].backward()
        optimizer.step()
        recipe.after_step(model)

    return step


def multiply_adds(step: Step) -> int:
    """The multiply-adds of the matrix products and convolutions in a step, counted where they are called.

    >>> multiply_adds(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    30
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2
