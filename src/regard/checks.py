"""Which word was meant?"""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, word: str, words: Iterable[str]) -> str:
    """The sentence that says a word is unknown: with the one that was probably meant, or else with all there are.

    >>> unknown("recipe", "glimps", ["glimpse", "translate"])
    "unknown recipe 'glimps': did you mean 'glimpse'?"
    >>> unknown("recipe", "paint", ["glimpse", "translate"])
    "unknown recipe 'paint': there are glimpse, translate"
    """
    words = sorted(words)
    close = get_close_matches(word, words, n=1)
    if close:
        return f"unknown {what} {word!r}: did you mean {close[0]!r}?"
    return f"unknown {what} {word!r}: there are {', '.join(words) or 'none'}"
