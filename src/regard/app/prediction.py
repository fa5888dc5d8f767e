"""A trained model at work: from its run, or a file of weights, alone."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2s
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from regard.app.training.batches import mix, random_state_kept, seed_all
from regard.app.training.config import files, read_config
from regard.app.training.errors import Failure
from regard.app.training.files import make_folder, write
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


def pending(inputs: Iterable[Any], part: tuple[int, int], folder: Path | None) -> Iterator[Any]:
    """Every N-th input from the I-th, by `part` = (I, N); of these the ones of which `folder`, if there is one, has no
    answer yet. Raises ValueError for an input that has no name to be kept by: one that is no line of text.

    >>> list(pending(["a", "b", "c", "d", "e"], part=(2, 3), folder=None))
    ['b', 'e']
    """
    for given in islice(inputs, part[0] - 1, None, part[1]):
        if folder is None or isinstance(given, Exception) or not answer_file(given, folder).exists():
            yield given


def answer_file(given: Any, folder: Path) -> Path:
    """Where the answer to a text or path is kept: by its last part, and a digest of all of it.

    >>> answer_file("slides/17.svs", Path("answers")).name
    '17-8f36d6c9.json'
    """
    if not isinstance(given, str | Path):
        raise ValueError(f"--out expected inputs that are paths or lines of text, but got {type(given).__name__}")
    plain = re.sub(r"[^\w.-]+", "_", Path(given).stem)[:50]
    return folder / f"{plain}-{blake2s(str(given).encode(), digest_size=4).hexdigest()}.json"


def keep(found: dict[str, Any], folder: Path) -> Path:
    """Writes an answer, `as_json`, to its file in a folder, which is made if need be. Raises Failure if it cannot."""
    file = answer_file(found["input"], folder)
    make_folder(folder)
    write(file, json.dumps(found, ensure_ascii=False).encode())
    return file


def as_json(number: int, given: Any, prediction: Any) -> dict[str, Any]:
    """An answer as names and values: the text or path that it is of, or else its number, and what it says.

    >>> as_json(1, "ein Haus", "a house")
    {'input': 'ein Haus', 'output': 'a house'}
    """
    said: Any = {"output": prediction} if isinstance(prediction, str) else prediction._asdict()
    return {"input": str(given) if isinstance(given, str | Path) else number, **said}
