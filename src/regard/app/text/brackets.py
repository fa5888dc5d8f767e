"""Constituency trees as brackets: read from text and written to it, as steps of a writer, and compared.

The rules by which trees are read, which are those of most work on the Penn Treebank: of a label what is before the
first -, = or | counts (`NP-SBJ-1` is `NP`); empty elements, tagged -NONE-, are left out, and so is what holds nothing
else; spaces in a word are written _; the outermost bracket is no constituent if it is unlabelled, or labelled TOP, ROOT
or S1.

The rules by which trees are compared are those of evalb (Sekine and Collins 1997) but for punctuation, which is kept
unless `without_marks` takes it out: a bracket is right if a bracket of the same label spans the same words, each
counted as often as it is there, so that of two brackets around the same words both count; parts of speech are no
brackets, and the outermost one, such as S, is one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from regard.app.text.reading import clean

Span = tuple[int, int, str]
"""The first and the last word of a constituent, and its label."""

Spans = list[tuple[int, int, int]]
"""The constituents of a tree, the labels being numbers."""

OUTSIDE = ("", "TOP", "ROOT", "S1")
MARKS = {",", ".", ":", "``", "''"}
"""The parts of speech that evalb takes out as punctuation."""
_TOKEN = re.compile(r"[()]|[^\s()]+")
_WRITTEN = {"(": "-LRB-", ")": "-RRB-"}


class Bracketing(NamedTuple):
    """A sentence with its tree: words, parts of speech, and constituents, each before those within it."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    spans: tuple[Span, ...]


def read_brackets(lines: Iterable[str], name: str = "the text") -> Iterator[Bracketing]:
    """The trees of lines, in each of which there may be several, or a part of one.

    Raises ValueError, with the number of the line, where brackets do not close or do not open, or hold a word and
    something else.

    >>> next(read_brackets(["( (S (NP-SBJ (DT The) (NN tide)) (VP (VBZ turns) (NP (-NONE- *)))) )"]))
    Bracketing(words=('The', 'tide'...spans=((0, 2, 'S'), (0, 1, 'NP'), (2, 2, 'VP')))
    """
    tree, number, begun = _Tree(), 0, 0
    for number, line in enumerate(lines, 1):
        for token in _TOKEN.findall(line):
            begun = number if not tree.open else begun
            try:
                tree.take(token)
            except ValueError as error:
                raise ValueError(f"{name}, line {number}: {error}") from None
            if not tree.open:
                if tree.words:
                    yield Bracketing(tuple(tree.words), tuple(tree.tags), tuple(filter(None, tree.spans)))
                tree = _Tree()
    if tree.open:
        raise ValueError(f"{name}, line {begun}: expected all brackets to close, but {len(tree.open)} do not")


class _Tree:
    """A tree that is being read; nothing here depends on how deep it is but memory."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.tags: list[str] = []
        self.spans: list[Span | None] = []
        self.open: list[list] = []  # label, word, place among the spans, first word

    def take(self, token: str) -> None:
        if token == "(":
            if self.open and self.open[-1][1] is not None:
                raise ValueError(f"expected ) after the word {self.open[-1][1]!r}, but got another bracket")
            if self.open and self.open[-1][0] is None:
                self.open[-1][0] = ""
            self.spans.append(None)
            self.open.append([None, None, len(self.spans) - 1, len(self.words)])
        elif not self.open:
            raise ValueError(f"expected (, but got {token!r}")
        elif token == ")":
            self._close()
        elif self.open[-1][0] is None:
            self.open[-1][0] = token
        elif len(self.spans) == self.open[-1][2] + 1:
            self.open[-1][1] = "_".join(filter(None, (self.open[-1][1], token)))
        else:
            raise ValueError(f"expected a word or brackets in a bracket, but got both, {token!r} being the word")

    def _close(self) -> None:
        label, word, place, first = self.open.pop()
        if word is not None:
            if label != "-NONE-":
                self.words.append(_cleaned(word))
                self.tags.append(plain(label or ""))
        elif len(self.words) > first and (self.open or (label or "") not in OUTSIDE):
            self.spans[place] = first, len(self.words) - 1, plain(label or "")


_cleaned = cache(clean)


@cache
def plain(label: str) -> str:
    """A label without its functions and numbers.

    >>> plain("NP-SBJ-1"), plain("-LRB-"), plain("NP=2")
    ('NP', '-LRB-', 'NP')
    """
    return re.split("[-=|]", label)[0] or label


def written(words: Sequence[str], tags: Sequence[str], spans: Iterable[Span]) -> str:
    """A tree on one line; brackets among the words are written -LRB- and -RRB-.

    >>> written(["Tides", "turn"], ["NNS", "VBP"], [(0, 1, "S"), (0, 0, "NP"), (1, 1, "VP")])
    '(TOP (S (NP (NNS Tides)) (VP (VBP turn))))'
    """
    before: list[list[str]] = [[] for _ in words]
    after = [0] * len(words)
    for first, last, label in sorted(spans, key=lambda span: (span[0], -span[1])):
        before[first].append(f"({label} ")
        after[last] += 1
    leaves = (
        f"{''.join(opened)}({escaped(tag)} {escaped(word)}){')' * closed}"
        for opened, tag, word, closed in zip(before, tags, words, after, strict=True)
    )
    return f"(TOP {' '.join(leaves)})"


def escaped(word: str) -> str:
    """A word without brackets, as the Penn Treebank has it.

    >>> escaped("(i)")
    '-LRB-i-RRB-'
    """
    return re.sub("[()]", lambda mark: _WRITTEN[mark[0]], word)


BEGIN, END, WORD, CLOSE = 1, 2, 3, 4
FIRST_LABEL = 5
"""The steps that write a tree: a word of the sentence, the end of the innermost bracket, and from here on the beginning
of one with a label; 0 is none."""


def steps(count: int, spans: Iterable[Sequence[int]]) -> list[int]:
    """The steps that write a tree of so many words, whose labels are numbers, and END (Vinyals et al. 2015, section 2).

    >>> steps(2, [(0, 1, 0), (0, 0, 1)])
    [5, 6, 3, 4, 3, 4, 2]
    """
    opened: list[list[int]] = [[] for _ in range(count)]
    closed = [0] * count
    for first, last, label in spans:
        opened[first].append(FIRST_LABEL + label)
        closed[last] += 1
    each = (step for word in range(count) for step in (*opened[word], WORD, *[CLOSE] * closed[word]))
    return [*each, END]


def read_steps(written: Sequence[int], count: int) -> Spans | None:
    """The spans of the tree that steps without END write, and None where they are malformed: brackets that do not open
    or close, or hold nothing, or another number of words.

    >>> read_steps([5, 6, 3, 4, 3, 4], 2), read_steps([5, 3, 4], 2), read_steps([5, 3, 3], 2)
    ([(0, 1, 0), (0, 0, 1)], None, None)
    """
    spans: Spans = []
    open_places: list[int] = []
    words = 0
    for step in written:
        if step >= FIRST_LABEL:
            open_places.append(len(spans))
            spans.append((words, -1, step - FIRST_LABEL))
        elif step == WORD:
            words += 1
        elif step == CLOSE and open_places and spans[open_places[-1]][0] < words:
            place = open_places.pop()
            spans[place] = spans[place][0], words - 1, spans[place][2]
        else:
            return None
    return None if open_places or words != count else spans


def counted(found: Iterable[tuple], gold: Iterable[tuple]) -> dict[str, int]:
    """How many brackets of a tree are those of the true one, how many it has, and how many the true one has.

    >>> counted([(0, 1, "S"), (1, 1, "VP")], [(0, 1, "S"), (0, 0, "NP"), (1, 1, "VP")])
    {'right': 2, 'found': 2, 'gold': 3}
    """
    one, other = Counter(found), Counter(gold)
    return {"right": (one & other).total(), "found": one.total(), "gold": other.total()}


def scores(sums: Mapping[str, int | float]) -> dict[str, float]:
    """Precision, recall and F1 in per cent, from what `counted` says of all sentences; of nothing, 0.

    >>> scores({"right": 2, "found": 2, "gold": 3})
    {'f1': 80.0, 'precision': 100.0, 'recall': 66.66666666666667}
    """
    right, found, gold = (sums[name] for name in ("right", "found", "gold"))
    ratio = lambda part, whole: 100 * part / whole if whole else 0.0  # noqa: E731
    return {"f1": ratio(2 * right, found + gold), "precision": ratio(right, found), "recall": ratio(right, gold)}


def without_marks(spans: Iterable[tuple], marks: Sequence[int]) -> list[tuple]:
    """The spans of the words that are no punctuation, where that is said of each; those of nothing else are gone.

    >>> without_marks([(0, 2, "S"), (1, 1, "PRN"), (2, 2, "VP")], [0, 1, 0])
    [(0, 1, 'S'), (1, 1, 'VP')]
    """
    kept = [0]
    for mark in marks:
        kept.append(kept[-1] + (not mark))
    places = ((kept[first], kept[last + 1] - 1, label) for first, last, label in spans)
    return [span for span in places if span[0] <= span[1]]
