"""Trees over words, spans of words, words against words, as matplotlib figures: where a model looked in sentences.

Every function gives a `Figure` of its own, free of pyplot's global state: `figure.savefig("tree.png", dpi=200)`.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from regard.app.report.drawings import COLOURS, opacity, tint
from regard.app.report.glances import few
from regard.app.report.matrix import INK, Matrix, Square
from regard.app.report.report import Number

FONT = {"family": "monospace", "fontsize": 10, "parse_math": False}
CHARACTER, LINE = 0.086, 0.25  # inches of a character, and from line to line
CELL, GRID = 4, "#d0d0d0"  # characters of a weight's cell, and the colour of its edges
SEEN = 0.05  # the smallest probability of an arc that is drawn
THICK = 3.0  # points of a line whose probability is one
ACROSS, SMALL, TINY = 4, 0.2, 0.07  # small matrices beside each other, inches of a weight in them and of a character
WRITTEN = 0.1  # the smallest weight whose per cent are written on its square
RIGHT, WRONG, MISSED, OTHER = COLOURS[1][0], COLOURS[0][0], "black", COLOURS[4][0]


def arcs(
    words: Sequence[str],
    heads: Int[Tensor, " K"],
    gold: Int[Tensor, " K"] | None = None,
    weights: Float[Tensor, "K K"] | None = None,
    relations: Sequence[str] = (),
) -> Figure:
    """The arcs of a tree above its words, each from a head to the word below it, or from above if that is the root.

    Right arcs are blue, wrong ones orange, and true ones that were missed dashed; a line is as thick as its arc is
    probable, and other arcs that are probable are grey.

    Args:
        words: K of them.
        heads: the head of each word, its own place where it is the root: an event of `rg.tree`.
        gold: the true heads, those above if not given.
        weights: the probability of word j being the head of word i, as `positions.mean` of `rg.tree`; 1 if not given.
        relations: names written on the arcs of `heads`.

    >>> import torch
    >>> figure = arcs(["Time", "flies", "."], torch.tensor([1, 1, 1]), relations=["nsubj", "root", "punct"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['Time', 'flies', '.', 'nsubj', 'root', 'punct']
    """
    found, true = heads.tolist(), (heads if gold is None else gold).tolist()
    lefts = _lefts(words, gap=3)
    middles = [left + len(word) / 2 for left, word in zip(lefts[:-1], words, strict=True)]
    highest = max((_height(middles[i], middles[head]) for i, head in [*enumerate(found), *enumerate(true)]), default=1)
    axes = _axes(lefts[-1], -1.2, highest + 2.2)
    for left, word in zip(lefts[:-1], words, strict=True):
        axes.text(left, -0.9, word, **FONT)
    if weights is not None:
        for i, head in (weights >= SEEN).nonzero().tolist():
            if head not in (found[i], true[i]):
                _arc(axes, middles, i, head, highest, OTHER, float(weights[i, head]))
    for i, (head, truth) in enumerate(zip(found, true, strict=True)):
        if head != truth:
            _arc(axes, middles, i, truth, highest, MISSED, _weight(weights, i, truth), dashed=True)
        _arc(axes, middles, i, head, highest, RIGHT if head == truth else WRONG, _weight(weights, i, head))
    for i, relation in enumerate(relations):
        x, y = (middles[i] + middles[found[i]]) / 2, _height(middles[i], middles[found[i]]) or highest + 1
        axes.text(x, y + 0.1, relation, ha="center", **{**FONT, "fontsize": 7})
    return axes.figure  # pyright: ignore[reportReturnType]


def spans(
    words: Sequence[str],
    weights: Float[Tensor, "Q K"],
    marked: Bool[Tensor, " K"] | None = None,
    names: Sequence[str] = (),
    width: int = 100,
) -> Figure:
    """The words once for each query, on a ground that is the darker the larger a word's weight: words that are looked
    at together are spans of one colour.

    Args:
        words: K of them, or whole sentences.
        weights: from 0 to 1, as `positions.mean` of `rg.segments`, or 0 and 1, as an indicator.
        marked: which words are underlined, as those that should be looked at.
        names: of the queries, written above each.
        width: characters of a line.

    >>> import torch
    >>> figure = spans(["Mary", "went", "home"], torch.tensor([[0.0, 0.9, 0.9]]), names=["where?"])
    >>> [text.get_text() for text in figure.axes[0].texts], len(figure.axes[0].patches)
    (['where?', 'Mary', 'went', 'home'], 3)
    """
    places = _lines(words, width)
    deep = places[-1][0] + 2 + bool(names)
    axes = _axes(
        max(left + len(word) for (_, left), word in zip(places, words, strict=True)) + 2, -deep * len(weights), 0
    )
    for query, row in enumerate(weights.detach().cpu()):
        top = -deep * query - 1
        if names:
            axes.text(1, top, names[query], color=OTHER, **FONT)
            top -= 1
        for k, ((line, left), word) in enumerate(zip(places, words, strict=True)):
            colour, shade = COLOURS[query % len(COLOURS)][0], float(opacity(row[k]))
            ground = (left - 1, top - line - 0.3), len(word) + 2, 0.95
            axes.add_patch(Rectangle(*ground, facecolor=colour, alpha=shade * 0.6, linewidth=0))
            axes.text(left, top - line, word, **FONT)
            if marked is not None and marked[k]:
                axes.plot([left, left + len(word)], [top - line - 0.2] * 2, color="black", linewidth=1)
    return axes.figure  # pyright: ignore[reportReturnType]


def choices(
    sentences: Sequence[str],
    weights: Float[Tensor, "T N"],
    marked: Bool[Tensor, " N"] | None = None,
) -> Figure:
    """The sentences of a text below each other, and before each a column for every hop, the darker the larger the
    weight that the hop gives it.

    Args:
        sentences: N of them.
        weights: from 0 to 1, of T hops.
        marked: which sentences have a point and heavy letters, as those that should be looked at.

    >>> import torch
    >>> figure = choices(["mary went home", "john slept"], torch.eye(2), torch.tensor([True, False]))
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '2', '● mary went home', 'john slept']
    """
    left = 1 + CELL * len(weights)
    axes = _axes(left + 4 + max(map(len, sentences)), -len(sentences) - 0.3, 1)
    for hop, row in enumerate(weights.detach().cpu()):
        axes.text(1 + CELL * (hop + 0.5), 0.2, str(hop + 1), ha="center", color=OTHER, **FONT)
        for n, shade in enumerate(opacity(row).tolist()):
            colour = COLOURS[hop % len(COLOURS)][0]
            axes.add_patch(Rectangle((1 + CELL * hop, -n - 1), CELL, 1, facecolor=(colour, shade), edgecolor=GRID))
    for n, sentence in enumerate(sentences):
        needed = marked is not None and bool(marked[n])
        text, weight = (f"● {sentence}", "bold") if needed else (sentence, "normal")
        axes.text(left + (1 if needed else 3), -n - 0.75, text, weight=weight, **FONT)
    return axes.figure  # pyright: ignore[reportReturnType]


def squares(matrix: Matrix) -> Figure:
    """A square for every target and source word, the darker the larger the weight, which is written on it in per cent
    if it is large; target words are on the left, source words above.

    >>> import torch
    >>> figure = squares(Matrix(["die", "Katze"], ["cat"], torch.tensor([[0.03, 0.97]])))
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['die', 'Katze', 'cat', '97']
    """
    rows, columns, side = len(matrix.target), len(matrix.source), LINE / CHARACTER
    left, above = (2 + max(map(len, words), default=0) for words in (matrix.target, matrix.source))
    axes = _axes(left + columns * side + 1, -rows - 0.3, above / side)
    axes.hlines(range(-rows, 1), left, left + columns * side, color=GRID, linewidth=0.5)
    axes.vlines([left + k * side for k in range(columns + 1)], -rows, 0, color=GRID, linewidth=0.5)
    for k, word in enumerate(matrix.source):
        axes.text(left + (k + 0.5) * side, 0.3, word, rotation=90, ha="center", va="bottom", **FONT)
    for q, word in enumerate(matrix.target):
        axes.text(left - 1, -q - 0.5, word, ha="right", va="center_baseline", **FONT)
    for q, row in enumerate(matrix.squares):
        for k, square in enumerate(row):
            if square.number:
                _square(axes, square, left + k * side, -q - 1, bool(matrix.weights[q, k] >= WRITTEN))
    return axes.figure  # pyright: ignore[reportReturnType]


def learned(matrices: Mapping[int, Matrix]) -> Figure:
    """Small matrices of the same words after some of the epochs, and below them, how many words each looked at after
    every epoch, on average.

    >>> import torch
    >>> unsure, sure = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.1, 0.9]])
    >>> figure = learned({n: Matrix(["die", "Katze"], ["cat"], each) for n, each in ((1, unsure), (2, sure))})
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['epoch 1: 2.0 words', 'epoch 2: 1.4 words', 'epoch']
    """
    shown, first = few(matrices), matrices[min(matrices)]
    left, above = LINE + TINY * max(map(len, first.target)), 2 * LINE + TINY * max(map(len, first.source))
    wide, high = LINE + SMALL * max(len(first.source), 8), SMALL * len(first.target)
    across, down = min(ACROSS, len(shown)), -(-len(shown) // ACROSS)
    width, height = left + across * wide, down * (above + high) + 7 * LINE
    figure = Figure((width, height))
    for n, (epoch, matrix) in enumerate(shown.items()):
        x, y = left + n % across * wide, height + LINE - (1 + n // across) * (above + high)
        axes = figure.add_axes((x / width, y / height, SMALL * len(first.source) / width, high / height))
        _panel(axes, matrix, f"epoch {epoch}: {matrix.breadth:.1f} words", named=n % across == 0)
    _curve(figure.add_axes((left / width, 2 * LINE / height, 1 - (left + LINE) / width, 4 * LINE / height)), matrices)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a small PNG.

    >>> png(spans(["home"], Tensor([[1.0]])))[1:4]
    b'PNG'
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=120)
    Image.open(drawn).convert("RGB").quantize(64).save(small, format="png", optimize=True)
    return small.getvalue()


def _lefts(words: Sequence[str], gap: int) -> list[int]:
    """Where each word begins, in characters, and where the next would."""
    ends = np.cumsum([1, *(len(word) + gap for word in words)])
    return ends.tolist()


def _lines(words: Sequence[str], width: int) -> list[tuple[int, int]]:
    """The line and the character at which each word begins, two characters apart."""
    places, line, left = [], 0, 1
    for word in words:
        if left > 1 and left + len(word) > width:
            line, left = line + 1, 1
        places.append((line, left))
        left += len(word) + 2
    return places


def _axes(width: Number, low: Number, high: Number) -> Axes:
    """Axes over a whole figure in characters from 0 to `width`, and in lines from `low` to `high`."""
    figure = Figure((width * CHARACTER, (high - low) * LINE))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(low, high))
    axes.axis("off")
    return axes


def _square(axes: Axes, square: Square, left: Number, bottom: Number, written: bool) -> None:
    """One weight, and its number if that is to be written."""
    side = LINE / CHARACTER
    axes.add_artist(  # add_patch would look, each time, whether the axes must be larger
        Rectangle((left, bottom), side, 1, facecolor=(INK[0], square.opacity), edgecolor=GRID, linewidth=0.5)
    )
    if written:
        font = {**FONT, "fontsize": 7, "color": "white" if square.deep else "black"}
        axes.text(left + side / 2, bottom + 0.5, square.number, ha="center", va="center_baseline", **font)


def _panel(axes: Axes, matrix: Matrix, title: str, named: bool) -> None:
    """A small matrix, with its source words above it, and its target words if they are to be named."""
    font = {**FONT, "fontsize": 8}
    axes.imshow(tint(matrix.weights, INK[0]), aspect="auto")
    axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.set_xticks(range(len(matrix.source)), matrix.source, rotation=90, **font)
    axes.set_yticks(range(len(matrix.target)), matrix.target if named else [""] * len(matrix.target), **font)
    axes.set_xlabel(title, fontsize=9)


def _curve(axes: Axes, matrices: Mapping[int, Matrix]) -> None:
    """How many words each word looked at after every epoch."""
    axes.plot(list(matrices), [each.breadth for each in matrices.values()], marker=".", color=INK[0])
    axes.set(xlabel="epoch", ylabel="words", ylim=(0, None))
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.spines[["top", "right"]].set_visible(False)


def _weight(weights: Tensor | None, i: int, head: int) -> float:
    return 1.0 if weights is None else float(weights[i, head])


def _height(x: Number, y: Number) -> float:
    """How high an arc is above the words, in lines."""
    return abs(x - y) ** 0.6 / 1.5


def _arc(
    axes: Axes,
    middles: list[float],
    i: int,
    head: int,
    highest: float,
    colour: str,
    weight: float,
    dashed: bool = False,
) -> None:
    """An arc from the head to word i, or a line from the top to it, with a point at its end."""
    start, end = middles[head], middles[i]
    around = np.linspace(0, np.pi, 60)
    x, y = (start + end) / 2 + (start - end) / 2 * np.cos(around), _height(start, end) * np.sin(around)
    if head == i:
        x, y = np.array([end, end]), np.array([highest + 1, 0])
    axes.plot(x, y, color=colour, linewidth=0.4 + (THICK - 0.4) * weight, linestyle="--" if dashed else "-")
    axes.plot([end], [0.08], marker="v", color=colour, markersize=6, linewidth=0)
