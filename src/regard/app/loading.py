"""The door to trained models for who imports regard: `regard.load`. It is light; what it opens is not."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regard.app.prediction import Trained


def load(run: str | Path, recipe: str | Path | None = None) -> "Trained":
    """A trained model that answers: `model = regard.load("runs/translate/additive-seed0")`, then
    `model.predict(["ein Haus"])`.

    `run` is the folder of a run, or a file of weights with its configuration beside it, or one that `regard push` has
    taken to the Hub of Hugging Face, "hub:USER/NAME"; nothing of the data is needed.
    What a model reads and answers is its recipe's: translate, classify, rationale and language read lines of text, and
    read those with a name left out; glimpse, caption, draw and sampling paths of pictures, and stitch paths of folders
    of them; speech paths of sounds; parse sentences in CoNLL-U or as lists of words; answer pairs of a list of facts
    and a question; recall sequences of bits. A run of a recipe of your own needs its file as `recipe`, as what a folder
    says is never run.

    Raises Failure if there is no such run, or it is damaged, and ValueError if it needs what is not installed.

    >>> load("no/such/run")
    Traceback (most recent call last):
    regard.app.training.errors.Failure: no/such/run is not a run: it has no config.yaml.
    """
    from regard.app import hub, prediction

    return prediction.load(hub.found(run), recipe)
