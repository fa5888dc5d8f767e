"""Trees over words and spans of words: what is drawn, where, and how thick."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from regard.app.report import text_figures
from regard.app.report.text_figures import arcs, png, spans

WORDS = ["Time", "flies", "like", "an", "arrow"]
HEADS = torch.tensor([1, 1, 4, 4, 1])


def lines(axes: Axes, colour: str) -> list[Line2D]:
    """The arcs of a colour, without the points at their ends."""
    return [line for line in axes.lines if to_hex(line.get_color()) == to_hex(colour) and len(line.get_xdata()) > 1]


def test_every_word_has_an_arc_from_its_head():
    (axes,) = arcs(WORDS, HEADS).axes
    places = {text.get_text(): text.get_position()[0] + len(text.get_text()) / 2 for text in axes.texts}
    drawn = lines(axes, text_figures.RIGHT)
    for word, head, line in zip(WORDS, HEADS.tolist(), drawn, strict=True):
        ends = sorted((places[word], places[WORDS[head]]))
        assert [min(line.get_xdata()), max(line.get_xdata())] == pytest.approx(ends)
    assert len(drawn) == len(axes.lines) / 2
    assert all(line.get_linewidth() == text_figures.THICK for line in drawn)


def test_wrong_arcs_missed_arcs_and_others_that_are_probable():
    heads, weights = torch.tensor([1, 1, 1, 4, 1]), torch.zeros(5, 5)
    weights[torch.arange(5), HEADS] = 0.4
    weights[2, 1], weights[2, 2], weights[2, 0] = 0.5, 0.06, 0.04
    (axes,) = arcs(WORDS, heads, HEADS, weights).axes
    right, wrong, missed, others = (
        lines(axes, getattr(text_figures, colour)) for colour in ("RIGHT", "WRONG", "MISSED", "OTHER")
    )
    assert [len(each) for each in (right, wrong, missed, others)] == [4, 1, 1, 1]
    assert missed[0].get_linestyle() == "--" and wrong[0].get_linestyle() == "-"
    thick = [each[0].get_linewidth() for each in (others, right, wrong)]
    assert thick == sorted(thick) and thick[0] < thick[1] < thick[2] < text_figures.THICK
    assert min(right[0].get_xdata()) < max(right[0].get_xdata()), "an arc, not the line of a root"
    first, *_, last = np.asarray(others[0].get_xdata())
    assert first == last, "the root, from above"


def test_relations_are_written_on_their_arcs():
    (axes,) = arcs(WORDS, HEADS, relations=["nsubj", "root", "case", "det", "obl"]).axes
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    middle = {word: texts[word][0] + len(word) / 2 for word in WORDS}
    assert texts["obl"][0] == pytest.approx((middle["arrow"] + middle["flies"]) / 2)
    assert texts["root"][1] > texts["obl"][1] > texts["det"][1] > texts["an"][1]


def test_spans_are_darker_the_larger_their_weights():
    weights = torch.tensor([[0.0, 0.1, 0.9, 0.9, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
    (axes,) = spans(WORDS, weights, torch.tensor([True, False, False, False, True]), ["first", "second"]).axes
    grounds = [patch.get_alpha() or 0.0 for patch in axes.patches]
    assert len(grounds) == 10
    assert grounds[0] == grounds[4] == 0 < grounds[1] < grounds[2] == grounds[3] < grounds[5]
    assert len(axes.lines) == 4, "two words are underlined, twice"
    assert [text.get_text() for text in axes.texts] == ["first", *WORDS, "second", *WORDS]
    left, right = axes.patches[2], axes.patches[3]
    assert left.get_x() + left.get_width() == right.get_x(), "one span without a gap"
    assert left.get_y() == right.get_y() > axes.patches[7].get_y()


def test_long_sentences_are_broken_into_lines():
    words = ["word"] * 30
    (axes,) = spans(words, torch.zeros(1, 30), width=40).axes
    places = [text.get_position() for text in axes.texts]
    assert len(set(places)) == 30 and len({y for _, y in places}) == 5
    assert max(x for x, _ in places) <= 40


@pytest.mark.parametrize("words", [["Go"], ["a"] * 40])
def test_sentences_of_any_length_are_drawn_and_written(words: list[str]):
    heads = torch.zeros(len(words), dtype=torch.long)
    for figure in (
        arcs(words, heads, weights=torch.ones(len(words), len(words))),
        spans(words, torch.rand(1, len(words))),
    ):
        assert png(figure).startswith(b"\x89PNG")


def test_words_are_not_read_as_formulas():
    assert png(spans(["$5", "and_$", "$\\x$"], torch.rand(1, 3))).startswith(b"\x89PNG")
