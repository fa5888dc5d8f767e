"""Words of a text, shaded by how much was read of each: pictures of what classifies texts."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from jaxtyping import Bool, Float
from torch import Tensor

from regard.app.report.report import Picture
from regard.app.report.text_figures import png, spans

LONGEST = 5
"""Pieces of a text that are quoted."""


def shaded(words: Sequence[str], weights: Float[Tensor, "H K"], said: str, names: Sequence[str] = ()) -> Picture:
    """A text, its N words once for each head, the darker the more was read of them; and in words what is said, and what
    each head of a name read most.

    >>> import torch
    >>> shaded(["a", "red", "car"], torch.tensor([[0.1, 0.6, 0.3]]), "Labelled for", ["head 1"]).text
    'Labelled for; most read by head 1 “red” (60%).'
    """
    weights = weights[:, : len(words)]
    most = [f"{name} “{words[int(row.argmax())]}” ({row.max():.0%})" for name, row in zip(names, weights, strict=False)]
    text = "; most read by ".join([said, ", ".join(most)] if most else [said])
    return Picture(" ".join(words), f"{text}.", png(spans(words, weights / weights.max(), names=names)))


def chosen_words(
    words: Sequence[str], choice: Float[Tensor, " K"], marked: Bool[Tensor, " K"], said: str, verb: str = "read"
) -> Picture:
    """A text, its N words on a dark ground where they were chosen and underlined where people marked them; and in words
    what is said, and the longest pieces that were chosen.

    >>> import torch
    >>> marked = torch.tensor([False, True, True])
    >>> chosen_words(["a", "red", "car"], torch.tensor([0.0, 1.0, 1.0]), marked, "Labelled for").text
    'Labelled for; read “red car” (2 of 3 words, 2 of them marked by people).'
    """
    choice, marked = choice[: len(words)], marked[: len(words)]
    runs = sorted(pieces(words, choice), key=lambda piece: -len(piece.split()))
    quoted = ", ".join(f"“{piece}”" for piece in runs[:LONGEST])
    count = f"{int(choice.sum())} of {len(words)} words"
    people = f", {int((choice * marked).sum())} of them marked by people" if marked.any() else ""
    text = f"{said}; {verb} {quoted or 'nothing'} ({count}{people})."
    return Picture(" ".join(words), text, png(spans(words, choice.unsqueeze(0), marked)))


def pieces(words: Sequence[str], choice: Float[Tensor, " K"]) -> list[str]:
    """The runs of chosen words, in order.

    >>> import torch
    >>> pieces(["a", "red", "car", "came"], torch.tensor([1.0, 0.0, 1.0, 1.0]))
    ['a', 'car came']
    """
    runs = groupby(zip(words, (choice > 0).tolist(), strict=False), key=itemgetter(1))
    return [" ".join(word for word, _ in run) for read, run in runs if read]


def verdict(classes: Sequence[str], chances: Float[Tensor, " classes"], label: int) -> str:
    """What a text is labelled, how probably, and whether that is right; the label -1 is not known.

    >>> import torch
    >>> verdict(["against", "for"], torch.tensor([0.2, 0.8]), label=0)
    'Labelled for (80%), not against'
    """
    best = int(chances.argmax())
    right = "" if label < 0 else ", right" if best == label else f", not {classes[label]}"
    return f"Labelled {classes[best]} ({chances[best]:.0%}){right}"
