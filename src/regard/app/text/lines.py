"""What recipes share that answer lines of text: hooks of `regard.recipes.base` that are the same for all of them."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from regard.app.text.reading import clean, stream_lines
from regard.app.text.tokens import tokens


def inputs(arguments: Sequence[str], stream: BinaryIO) -> Iterator[str]:
    """The arguments, or without any the lines of standard input."""
    return iter(arguments) if arguments else stream_lines(stream)


def prepare(model: Any, given: str) -> str:
    """The words of a text. Raises ValueError where it has none."""
    if not isinstance(given, str) or not (words := tokens(clean(given))):
        raise ValueError(f"expected a text with a word in it, but got {given!r}")
    return " ".join(words)


def written(given: Any, prediction: Any) -> str:
    """The answer alone."""
    return prediction.answer
