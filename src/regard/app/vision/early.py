"""Glimpses that end when the answer is sure."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

import regard as rg
from regard.app.vision.networks import Scene, State, as_computed


class Stopped(NamedTuple):
    """What came of images whose glimpses ended when the answer was sure."""

    answers: Tensor
    """The logits of the classes after the last glimpse, (B, classes)."""
    glimpses: Tensor
    """How many glimpses each image had, (B,)."""
    pixels: int
    """How many values the sensor read."""


@torch.no_grad()
def stop_early(model: Any, images: Tensor, threshold: float) -> Stopped:
    """Looks at each image until the probability of the best class is above the threshold, then no more: the images
    that are done leave the batch, so that the rest takes less time. At a threshold of 1 every glimpse is used, at 0 the
    first alone.

    Raises ValueError for a threshold that is no probability.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold expected a probability from 0 to 1, but got {threshold}.")
    model.eval()
    images = as_computed(images)
    scene, state = model.scene(images), model.start(images)
    memory = model.attention.prepare(scene, len(images))
    answers, glimpses = images.new_zeros(len(images), len(model.classes)), torch.zeros(len(images), dtype=torch.long)
    rows, pixels = torch.arange(len(images), device=images.device), scene.sensor.pixels
    for _ in range(model.config.glimpses):
        before = scene.sensor.pixels
        state, _ = model.glimpse(state, scene, memory)
        pixels += scene.sensor.pixels - before
        answers[rows] = model.classify(state.memory[0])
        glimpses[rows.cpu()] += 1
        unsure = answers[rows].softmax(-1).amax(-1) <= threshold
        rows, state = rows[unsure], State(*(each[:, unsure] for each in state))
        scene = Scene(scene.sensor.select(unsure), scene.eye)
        memory = None if memory is None else rg.select(memory, unsure)
        if not len(rows):
            break
    return Stopped(answers, glimpses, pixels)
