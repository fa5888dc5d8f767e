"""Spans as their labels say them, by conlleval's rules, and how they are counted."""

import pytest

from regard.app.text.spans import Span, in_bio, of_spans, scored, spans


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("O O", []),
        ("B-A I-A O B-A", [(0, 2, "A"), (3, 4, "A")]),
        ("B-A B-A", [(0, 1, "A"), (1, 2, "A")]),
        ("I-A I-A O I-A", [(0, 2, "A"), (3, 4, "A")]),
        ("I-A I-B", [(0, 1, "A"), (1, 2, "B")]),
        ("B-A I-B I-B", [(0, 1, "A"), (1, 3, "B")]),
        ("O I-A B-A", [(1, 2, "A"), (2, 3, "A")]),
        ("B-A E-A S-A S-B O E-A", [(0, 2, "A"), (2, 3, "A"), (3, 4, "B"), (5, 6, "A")]),
        ("E-A I-A", [(0, 1, "A"), (1, 2, "A")]),
        ("S-A I-A", [(0, 1, "A"), (1, 2, "A")]),
        ("B-A-B I-A-B", [(0, 2, "A-B")]),
        ("", []),
    ],
)
def test_spans_of_labels(labels: str, found: list[tuple[int, int, str]]):
    assert spans(labels.split()) == [Span(*each) for each in found]
    assert spans(in_bio(labels.split())) == spans(labels.split()), "of the same spans"


def test_bio_stays_as_it_is():
    labels = ["B-A", "I-A", "B-A", "O", "B-B", "I-B"]
    assert in_bio(labels) == labels


def test_what_are_labels_of_spans():
    assert of_spans(["O", "B-A", "E-A", "S-B"])
    for labels in (["NOUN"], ["B-"], ["O"], ["O", "B-A", "X-A"], ["B-A", ""], []):
        assert not of_spans(labels)


def test_scores():
    assert scored({"right": 3.0, "found": 4.0, "wanted": 6.0}) == {"precision": 0.75, "recall": 0.5, "f1": 0.6}
    assert scored({"right": 0.0, "found": 0.0, "wanted": 5.0}) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert scored({"right": 0.0, "found": 0.0, "wanted": 0.0}) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_the_example_of_the_shared_task():
    """Counted by hand: of six spans five are found, one with another end, one of another kind."""
    gold = ["B-NP", "B-VP", "B-NP", "I-NP", "O", "B-PP", "B-NP", "I-NP", "I-NP", "B-VP", "O"]
    ours = ["B-NP", "B-VP", "B-NP", "B-NP", "O", "B-PP", "B-NP", "I-NP", "B-VP", "I-VP", "O"]
    wanted, found = set(spans(gold)), set(spans(ours))
    assert (len(wanted), len(found), len(wanted & found)) == (6, 7, 3)
