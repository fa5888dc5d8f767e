"""What comes from outside, checked once where it comes in: which word was meant, and whether a part is one."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import regard

ROLES = {"score": "dot", "over": "softmax", "read": "mean"}
"""The kinds of part, and one of each."""
HOMES = {"regard.scores": "score", "regard.coverage": "score", "regard.over": "over", "regard.reads": "read"}
"""Where they are defined."""


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


def check_part(role: str, part: Any) -> None:
    """Raises TypeError unless it may be a score, an over or a read, as `role` says: what can be called, or says with
    `at` what can.

    >>> check_part("score", "aditive")
    Traceback (most recent call last):
    TypeError: score expected a part, not its name, but got 'aditive': did you mean regard.Additive(...)?
    >>> check_part("over", regard.top_k)
    Traceback (most recent call last):
    TypeError: over expected a part, but got the class top_k, which is one when called: top_k(...).
    """
    if isinstance(part, str):
        raise TypeError(f"{role} expected a part, not its name, but got {part!r}: {_nearest(role, part)}")
    if isinstance(part, type):
        name = part.__name__
        raise TypeError(f"{role} expected a part, but got the class {name}, which is one when called: {name}(...).")
    if not callable(part) and not hasattr(part, "at"):
        example = f"such as regard.{ROLES[role]}"
        raise TypeError(f"{role} expected a function or a module, {example}, but got {type(part).__name__}.")
    other = _role(part)
    if other not in (None, role):
        name = getattr(part, "__name__", type(part).__name__)
        raise TypeError(
            f"{role} expected a part such as regard.{ROLES[role]}, but got {name}, which is a part for {other}."
        )


def check_width(name: str, tensor: Any, width: int, of: str) -> None:
    """Raises ValueError unless the last dimension of a tensor has the size that something expects."""
    if tensor.shape[-1] != width:
        raise ValueError(f"{name} expected {width} as the last size, {of}, but got {tuple(tensor.shape)}.")


def _role(part: Any) -> str | None:
    """The kind of part that it is, by the name of the module that defines it, or its class."""
    home = getattr(part, "__module__", None) or ""
    return HOMES.get(".".join(home.split(".", 2)[:2]))


def _nearest(role: str, word: str) -> str:
    """The public part whose name is nearest to a word, or else one of its kind, as one would write it."""
    parts = {name.lower(): name for name in regard.__all__ if _role(getattr(regard, name)) == role}
    close = get_close_matches(word.lower(), parts, n=1)
    if not close:
        return f"a part such as regard.{ROLES[role]} is what it takes"
    name = parts[close[0]]
    return f"did you mean regard.{name}{'(...)' if isinstance(getattr(regard, name), type) else ''}?"
