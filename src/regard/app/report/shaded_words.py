"""Words of a text, shaded by how much was read of each: pictures of what classifies texts."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from regard.app.report.report import Picture
from regard.app.report.text_figures import png, spans


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


def verdict(classes: Sequence[str], chances: Float[Tensor, " classes"], label: int) -> str:
    """What a text is labelled, how probably, and whether that is right; the label -1 is not known.

    >>> import torch
    >>> verdict(["against", "for"], torch.tensor([0.2, 0.8]), label=0)
    'Labelled for (80%), not against'
    """
    best = int(chances.argmax())
    right = "" if label < 0 else ", right" if best == label else f", not {classes[label]}"
    return f"Labelled {classes[best]} ({chances[best]:.0%}){right}"
