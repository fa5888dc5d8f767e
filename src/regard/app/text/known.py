"""The data of recipes that label texts, in the words of those that are learned from, or that were."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from torch import Tensor

from regard.app.data.splits import Splits, spelled_by
from regard.app.facts import read_facts
from regard.app.text.vectors import Lexicon, lexicon, read_vectors
from regard.app.text.vocabulary import Words


class Texts(NamedTuple):
    """How texts are read. Its functions are the hooks of `regard.recipes.base` that have their names; a Config has
    `data`, `vectors` and `most`, and a model the word vectors `vectors` and the facts words, seen and classes."""

    read: Callable[..., Splits]
    """read(data, classes)."""
    read_test: Callable[..., Splits]
    """The same of the test part alone."""
    none: Callable[[Lexicon], Any]
    """A split without a text."""

    def data(self, config: Any) -> Splits:
        """The texts in the numbers of the training words and of those that have given vectors."""
        splits = self.read(config.data)
        given = read_vectors(config.vectors, config.most) if config.vectors else None
        train: Any = splits.train
        return spelled_by(splits, lexicon(train.texts, given))

    def known(self, config: Any, weights: Mapping[str, Tensor]) -> Splits:
        """No texts, but the words, their given vectors and the labels that were learned."""
        facts = read_facts(weights)
        none = self.none(Lexicon(Words(facts["words"]), facts["seen"], weights["vectors.given"]))
        return Splits(none, none, none, "", tuple(facts["classes"]))

    def fitted(self, config: Any, weights: Mapping[str, Tensor]) -> Splits:
        """The texts in the words and labels that were learned."""
        none, *_, classes, _ = cast(Any, self.known(config, weights))
        return spelled_by(self.read(config.data, classes), none.lexicon)

    def tested(self, config: Any, weights: Mapping[str, Tensor]) -> Splits:
        """The same of texts that need no training part."""
        none, *_, classes, _ = cast(Any, self.known(config, weights))
        return spelled_by(self.read_test(config.data, classes), none.lexicon)
