"""A small translator of dates, and what it is trained on."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from regard.app.data import Pairs, Splits
from regard.app.data.generators.dates import dates
from regard.app.text.vocabulary import Characters
from regard.app.training import loop as training
from regard.app.training.fabric import Fit
from regard.recipes import translate
from regard.recipes.translate import Config, Model

ATTENTIONS = get_args(Config.__annotations__["attention"])
SMALL = Config(hidden=16, batch=16, layers=2, heads=2, epochs=2)
QUIET = Fit(accelerator="cpu", progress="none")
attentions = pytest.mark.parametrize("attention", ATTENTIONS)


def made_of(count: int) -> Splits:
    source, target = dates(count, seed=0)
    letters = Characters(sorted(set("".join(source + target))))
    split = Pairs(source, target, letters)
    return Splits(split, split, split, "some dates")


SPLITS = made_of(48)


def made(attention: str, **settings) -> Model:
    torch.manual_seed(0)
    return Model(replace(SMALL, attention=attention, **{"soft": 0.0, **settings}), SPLITS)


def batch(count: int = 6) -> dict[str, Tensor]:
    return SPLITS.test.batch(torch.arange(count))


def trained(run: Path, config: Config = SMALL) -> Path:
    training.train(translate, config, run, QUIET)
    return run
