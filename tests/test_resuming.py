"""A run of each recipe that was stopped goes on to the same bits."""

import os
import pkgutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from regard import recipes
from regard.app.training.errors import Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.recipes.base import open_recipe

TINY: dict[str, dict[str, Any]] = {
    "answer": {"hidden": 8, "batch": 500},
    "bracket": {"words": 8, "shapes": 4, "hidden": 8, "layers": 1, "scoring": 8, "batch": 400},
    "caption": {"size": 32, "stride": 8, "hidden": 8, "batch": 1000},
    "classify": {"hidden": 6, "size": 8, "scoring": 8, "batch": 500},
    "draw": {"steps": 2, "latent": 4, "hidden": 8, "read": 4, "write": 4, "batch": 1500},
    "glimpse": {"glimpses": 2, "hidden": 8, "draws": 2, "batch": 1500},
    "language": {"size": 8, "batch": 200, "samples": 20},
    "parse": {
        "words": 8,
        "letters": 4,
        "filters": 4,
        "hidden": 8,
        "layers": 1,
        "arcs": 8,
        "relations": 8,
        "batch": 500,
    },
    "rationale": {"hidden": 8, "batch": 300},
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
        "batch": 8,
    },
    "speech": {"units": 8, "longest": 2, "each": 16, "batch": 4, "draws": 2, "width": 11},
    "stitch": {"filters": 4, "pairs": 64, "batch": 16},
    "tag": {"batch": 500},
    "translate": {"hidden": 8, "batch": 500},
}
"""What makes a run of each a matter of a second."""


def test_no_recipe_is_left_out():
    assert set(TINY) == {module.name for module in pkgutil.iter_modules(recipes.__path__)} - {"base"}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", TINY)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name: str, tmp_path: Path):
    recipe, asked = open_recipe(name), []
    config, quiet = recipe.Config(**TINY[name] | {"epochs": 2}), Fit(accelerator="cpu", threads=1, progress="none")

    def stop(fraction: float, logs: dict[str, int | float]) -> None:
        if fraction > 0.6 and not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))

    train(recipe, config, tmp_path / "whole", quiet)
    with pytest.raises(Interrupted, match=r"stopped at step \d+ of \d+"):
        train(recipe, config, tmp_path / "parts", replace(quiet, progress=stop))
    train(recipe, config, tmp_path / "parts", quiet)
    whole, parts = (torch.load(tmp_path / run / "last.ckpt", weights_only=False)["model"] for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
