"""A trained model at work: from its run, or a file of weights, alone."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from regard.app.training.batches import mix, random_state_kept, seed_all
from regard.app.training.config import files, read_config
from regard.app.training.errors import Failure
from regard.app.training.weights import filled, read_weights
from regard.recipes.base import Recipe, open_recipe

BATCH = 64
"""Inputs that are answered together."""

Complain = Callable[[object, Exception], None]
"""Told of a bad input, and what is wrong with it."""


class Trained:
    """A trained model: `predict` answers, and `network` is the module itself, in evaluation mode, on the CPU."""

    def __init__(self, recipe: Recipe, config: Any, network: Any):
        self.recipe, self.config, self.network = recipe, config, network

    def predict(self, inputs: Iterable[Any], batch: int = BATCH, **options: Any) -> list[Any]:
        """The answers to what the recipe reads, in their order; `options` are those of the recipe's `Prediction`.

        Raises ValueError, naming the input, for one that cannot be read, and for an option that there is not, and
        Failure if the recipe predicts nothing.
        """
        if isinstance(inputs, str | bytes):
            raise ValueError(f"predict expected a list of inputs, but got {inputs!r}")
        chosen = _options(self.recipe, options)
        return [prediction for _, _, prediction in answers(self, inputs, chosen, batch, _refuse)]


def load(run: str | Path, recipe: str | Path | Recipe | None = None) -> Trained:
    """The model of a run, a folder such as runs/translate/additive-seed0, or of a file of weights with its
    configuration beside it; a run of a recipe of your own needs its file.

    Raises Failure if there is none, or it is damaged, and ValueError if it needs what is not there.
    """
    own = open_recipe(recipe) if recipe else None
    run = Path(run)
    found, config = read_config(run, own)
    weights = read_weights(run)
    return Trained(found, config, filled(found.Model(config, found.known(config, weights)), weights, files(run)[1]))


def answers(
    trained: Trained, inputs: Iterable[Any], options: Any, batch: int, complain: Complain
) -> Iterator[tuple[int, Any, Any]]:
    """(number from 1 on, input, answer) of each input that is not bad, a batch at a time as they come.

    What is drawn at random depends on the number of the batch alone. Raises Failure if the recipe predicts nothing.
    """
    recipe, device = trained.recipe, torch.device("cpu")
    if not recipe.READS:
        raise Failure(f"the recipe {recipe.name} makes no predictions.")
    numbered = enumerate(_until_broken(inputs, complain), 1)
    for step, given in enumerate(iter(lambda: list(islice(numbered, batch)), [])):
        prepared = [_prepared(trained, one, complain) for _, one in given]
        good = [n for n, ready in enumerate(prepared) if ready is not None]
        if good:
            with torch.no_grad(), random_state_kept(device):
                seed_all(mix(trained.config.seed, "predict", step), device)
                found = recipe.predict(trained.network, [prepared[n] for n in good], options)
            yield from ((*given[n], prediction) for n, prediction in zip(good, found, strict=True))


def _options(recipe: Recipe, options: dict[str, Any]) -> Any:
    try:
        return recipe.Prediction(**options)
    except TypeError as error:
        raise ValueError(f"the recipe {recipe.name} cannot be asked so: {error}") from None


def _until_broken(inputs: Iterable[Any], complain: Complain) -> Iterator[Any]:
    """The inputs, up to where no more can be read."""
    try:
        yield from inputs
    except (ValueError, OSError) as error:
        complain(None, error)


def _prepared(trained: Trained, given: Any, complain: Complain) -> Any:
    """An input as the recipe takes it; None if it is bad, or an error that stands for one."""
    try:
        if isinstance(given, Exception):
            raise given
        return trained.recipe.prepare(trained.network, given)
    except (ValueError, OSError) as error:
        complain(given, error)
        return None


def _refuse(given: object, error: Exception) -> None:
    raise ValueError(str(error)) from error


def as_json(number: int, given: Any, prediction: Any) -> dict[str, Any]:
    """An answer as names and values: the text or path that it is of, or else its number, and what it says.

    >>> as_json(1, "ein Haus", "a house")
    {'input': 'ein Haus', 'output': 'a house'}
    """
    said: Any = {"output": prediction} if isinstance(prediction, str) else prediction._asdict()
    return {"input": str(given) if isinstance(given, str | Path) else number, **said}
