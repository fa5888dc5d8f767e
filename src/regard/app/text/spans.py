"""Labelled spans of words, as their labels say them, and how many were found: the rules of conlleval, the scorer of the
shared tasks CoNLL 2000 to 2003 (Tjong Kim Sang and Buchholz 2000, "Introduction to the CoNLL-2000 Shared Task:
Chunking", section 4)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

PREFIXES = ("B", "I", "E", "S")


class Span(NamedTuple):
    """The words from `start` to before `end`, which are of a kind."""

    start: int
    end: int
    kind: str


def of_spans(labels: Sequence[str]) -> bool:
    """Whether these are labels of spans: O, or B, I, E or S and a kind.

    >>> of_spans(["O", "B-NP", "I-NP"]), of_spans(["NOUN", "VERB"])
    (True, False)
    """
    return any(label != "O" for label in labels) and all(
        label == "O" or (label.partition("-")[0] in PREFIXES and label.partition("-")[2]) for label in labels
    )


def spans(labels: Sequence[str]) -> list[Span]:
    """The spans that labels say: B and S begin one, I and E go on with one of their kind and else begin one, and after
    E and S none goes on.

    >>> spans(["B-NP", "I-NP", "B-NP", "O", "I-VP", "I-NP"])
    [Span(start=0, end=2, kind='NP'), Span(start=2, end=3, kind='NP'), Span(start=4, end=5, kind='VP'), Span(start=5, end=6, kind='NP')]
    """  # noqa: E501
    found: list[Span] = []
    before, open_kind = "O", ""
    for n, label in enumerate(labels):
        prefix, _, kind = label.partition("-")
        if prefix == "O":
            before = "O"
            continue
        if prefix in ("B", "S") or before in ("O", "E", "S") or kind != open_kind:
            found.append(Span(n, n + 1, kind))
        else:
            found[-1] = Span(found[-1].start, n + 1, kind)
        before, open_kind = prefix, kind
    return found


def in_bio(labels: Sequence[str]) -> list[str]:
    """Labels of the same spans, each of which begins with B and goes on with I.

    >>> in_bio(["I-PER", "I-PER", "O", "S-LOC"])
    ['B-PER', 'I-PER', 'O', 'B-LOC']
    """
    written = ["O"] * len(labels)
    for span in spans(labels):
        written[span.start : span.end] = [f"B-{span.kind}"] + [f"I-{span.kind}"] * (span.end - span.start - 1)
    return written


def scored(spans_of: Mapping[str, float]) -> dict[str, float]:
    """Precision, recall and F1, their harmonic mean, from how many spans are `right`, `found` and `wanted`; zero where
    there are none to count.

    >>> scored({"right": 2.0, "found": 4.0, "wanted": 2.0})
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666}
    """
    right, found, wanted = (spans_of[name] for name in ("right", "found", "wanted"))
    return {
        "precision": right / found if found else 0.0,
        "recall": right / wanted if wanted else 0.0,
        "f1": 2 * right / (found + wanted) if found + wanted else 0.0,
    }
