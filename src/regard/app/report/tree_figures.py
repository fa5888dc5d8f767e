"""Constituency trees over words, as matplotlib figures."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure

from regard.app.report.text_figures import FONT, RIGHT, WRONG, _axes, _lefts

HIGH = 1.6  # lines from level to level
Span = tuple[int, int, str]


def nested(words: Sequence[str], spans: Sequence[Span], gold: Sequence[Span] | None = None) -> Figure:
    """A constituency tree above its words: each label over the words of its bracket, which a line spans.

    Right brackets are blue, wrong ones orange; true ones that were missed are not drawn.

    Args:
        words: K of them.
        spans: first and last word and label of each bracket, the outermost first.
        gold: those of the true tree, `spans` if not given.

    >>> figure = nested(["Time", "flies"], [(0, 1, "S"), (0, 0, "NP"), (1, 1, "VP")])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['Time', 'flies', 'VP', 'NP', 'S']
    """
    lefts = _lefts(words, gap=2)
    levels = [0] * len(words)  # how many brackets are above each word so far
    places = []
    for first, last, label in _inner_first(spans):
        level = 1 + max(levels[first : last + 1])
        levels[first : last + 1] = [level] * (last - first + 1)
        places.append((first, last, label, level))
    axes = _axes(lefts[-1], -0.3, 1 + HIGH * max(levels, default=0))
    for left, word in zip(lefts[:-1], words, strict=True):
        axes.text(left, 0, word, **FONT)
    true = Counter(spans if gold is None else gold)
    for first, last, label, level in places:
        right = true[first, last, label] > 0
        true[first, last, label] -= 1
        colour = RIGHT if right else WRONG
        begin, end, height = lefts[first], lefts[last] + len(words[last]), HIGH * level
        axes.plot([begin, begin, end, end], [height - 0.5, height - 0.2, height - 0.2, height - 0.5], color=colour)
        axes.text((begin + end) / 2, height, label, ha="center", **{**FONT, "fontsize": 8, "color": colour})
    return axes.figure  # pyright: ignore[reportReturnType]


def _inner_first(spans: Sequence[Span]) -> list[Span]:
    """The spans, those within others before these, and of those around the same words the last before the first."""
    return [span for _, span in sorted(enumerate(spans), key=lambda each: (each[1][1] - each[1][0], -each[0]))]
