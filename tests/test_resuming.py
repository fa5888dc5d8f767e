"""A run that was stopped goes on to the same bits, whatever the recipe."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.app.training.errors import Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.recipes.base import open_recipe

TINY: dict[str, dict[str, Any]] = {
    "answer": {"hidden": 8, "batch": 100},
    "bracket": {"words": 8, "shapes": 4, "hidden": 8, "layers": 1, "scoring": 8, "batch": 400},
    "classify": {"hidden": 6, "size": 8, "scoring": 8, "batch": 500},
    "draw": {"steps": 2, "latent": 4, "hidden": 8, "read": 4, "write": 4, "batch": 1500},
    "glimpse": {"glimpses": 2, "hidden": 8, "draws": 2, "batch": 1500},
    "parse": {"over": "softmax", "words": 8, "letters": 4, "filters": 4, "hidden": 8, "layers": 1, "batch": 500},
    "read": {"hidden": 8, "size": 10, "batch": 500},
    "recall": {"hidden": 8, "cells": 8, "width": 4, "bits": 3, "longest": 3, "draws": 2, "each": 40, "batch": 8},
    "sampling": {
        "side": 300,
        "view": 60,
        "grid": 20,
        "noise": 3,
        "patches": 2,
        "features": 8,
        "scenes": 32,
        "batch": 2,
    },
    "speech": {"units": 8, "longest": 2, "each": 16, "batch": 4, "draws": 2, "width": 11},
    "stitch": {"filters": 4, "pairs": 32, "batch": 8},
    "tag": {"batch": 500},
}
"""What makes a run of each a matter of seconds; those of the other recipes are stopped in tests of their own."""


@pytest.mark.unchecked
@pytest.mark.parametrize("name", TINY)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe: Any = open_recipe(name)
    config, quiet = recipe.Config(**TINY[name] | {"epochs": 2}), Fit(accelerator="cpu", threads=1, progress="none")
    loss, steps, stop = recipe.loss, [], []

    def counted(*given: Any) -> Any:
        steps.append(len(steps))
        if len(steps) in stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(*given)

    monkeypatch.setattr(recipe, "loss", counted)
    train(recipe, config, tmp_path / "whole", quiet)
    stop.append(len(steps) + len(steps) * 3 // 4)  # in the second epoch
    with pytest.raises(Interrupted):
        train(recipe, config, tmp_path / "parts", quiet)
    train(recipe, config, tmp_path / "parts", quiet)
    whole, parts = (torch.load(tmp_path / run / "last.ckpt", weights_only=False)["model"] for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
