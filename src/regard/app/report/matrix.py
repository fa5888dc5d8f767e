"""The weights of target words over source words: subwords merged to words, and what each word looked at in words.

`text_figures.squares` draws a `Matrix` as a picture, and a `report.Picture` that holds one is a table in the
report, which shows its numbers where one points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

INK = ("#08306b", "#82afe2")  # of the squares, on a light page and on a dark one
DEEP = 0.65  # the opacity from which on a number on a square is of the page's colour
LEAST = 0.005  # the smallest weight that has a number
NAMED = 3  # words at most that are named of those that a word looked at


def merged(
    weights: Float[Tensor, "Q K"], source_groups: Sequence[int], target_groups: Sequence[int]
) -> Float[Tensor, "target source"]:
    """The weights of words, of the weights of their pieces: the sum over the pieces of a source word, and the mean over
    those of a target word.

    merged[i, j] = mean over q in target word i of sum over k in source word j of weights[q, k], so that rows which sum
    to one still do. The events of a hard read are merged in the same way: give `positions.indicator(z)`.

    Args:
        weights: of Q target pieces over K source pieces.
        source_groups: the number of the word, from 0 on, that each of the K pieces belongs to; -1 if to none.
        target_groups: the same of the Q pieces.

    Raises:
        ValueError: groups that are not as many as the pieces.

    >>> merged(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), [0, 0, 1], [0, 0])
    tensor([[0.5500, 0.4500]])
    """
    for name, groups, size in (("source", source_groups, weights.shape[1]), ("target", target_groups, len(weights))):
        if len(groups) != size:
            raise ValueError(f"expected the word of each of {size} pieces in {name}_groups, got {len(groups)} words")
    source, target = _members(source_groups, weights), _members(target_groups, weights)
    return (target / target.sum(0).clamp_min(1)).mT @ weights @ source  # (target, source)


def _members(groups: Sequence[int], like: Tensor) -> Float[Tensor, "pieces words"]:
    """Which piece belongs to which word, as 0 and 1."""
    numbers = torch.as_tensor(groups, device=like.device).view(-1, 1)
    words = torch.arange(max([-1, *groups]) + 1, device=like.device)
    return (numbers == words).to(like.dtype)


@dataclass(frozen=True)
class Square:
    """What is drawn of one weight: its per cent, how opaque it is, and whether its number is of the page's colour."""

    number: str
    opacity: float
    deep: bool


@dataclass
class Matrix:
    """The weights of target words over source words, and what is drawn and said of them.

    Args:
        source: the words that were read.
        target: the words that were written.
        weights: (target, source), as `merged` gives them.

    Raises:
        ValueError: weights that are not as many as the words.

    >>> matrix = Matrix(["die", "Katze"], ["cat"], torch.tensor([[0.0, 0.97]]))
    >>> matrix.looked, matrix.seen
    (['“cat” looked at “Katze” 97 %.'], ['“die” was looked at by no word.', '“Katze” was looked at by “cat” 97 %.'])
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: Float[Tensor, "target source"]

    def __post_init__(self) -> None:
        self.weights = self.weights.detach().cpu().float()
        expected, got = (len(self.target), len(self.source)), tuple(self.weights.shape)
        if got != expected:
            raise ValueError(f"expected weights of the target words by the source words, {expected}, got {got}")

    @property
    def squares(self) -> list[list[Square]]:
        """What is drawn of each weight."""
        from regard.app.report.drawings import opacity

        shades = opacity(self.weights).tolist()
        return [list(map(_square, *rows)) for rows in zip(self.weights.tolist(), shades, strict=True)]

    @property
    def breadth(self) -> float:
        """How many source words a target word looked at: exp of the entropy of its weights, as shares of their sum, or
        0 where there are none; on average.

        >>> Matrix(["die", "Katze"], ["the", "cat"], torch.tensor([[0.5, 0.5], [0.0, 1.0]])).breadth
        1.5
        """
        shares = self.weights / self.weights.sum(-1, keepdim=True).clamp_min(1e-9)
        words = shares.sum(-1) * torch.special.entr(shares).sum(-1).exp()
        return float(words.mean())

    @property
    def looked(self) -> list[str]:
        """A sentence for each target word: what it looked at."""
        rows = zip(self.target, self.weights.tolist(), strict=True)
        return [f"“{word}” looked at {_most(self.source, row)}." for word, row in rows]

    @property
    def seen(self) -> list[str]:
        """A sentence for each source word: what looked at it."""
        columns = zip(self.source, self.weights.mT.tolist(), strict=True)
        return [f"“{word}” was looked at by {_most(self.target, column)}." for word, column in columns]


def _square(weight: float, shade: float) -> Square:
    return Square(f"{100 * weight:.0f}" if weight >= LEAST else "", shade, shade >= DEEP)


def _most(words: Sequence[str], weights: Sequence[float]) -> str:
    """The words of the largest weights, and these."""
    order = sorted(range(len(words)), key=lambda i: -weights[i])[:NAMED]
    return ", ".join(f"“{words[i]}” {100 * weights[i]:.0f} %" for i in order if weights[i] >= LEAST) or "no word"
