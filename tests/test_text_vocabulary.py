"""Vocabularies: text as numbers and back, whatever is written in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.app.text.reading import clean
from regard.app.text.vocabulary import (
    SPECIAL,
    START,
    UNKNOWN,
    Characters,
    Words,
    subwords,
    vocabulary,
    whole_words,
    words,
)

GERMAN = ["ein Haus", "ein rotes Haus", "das Haus, ein Baum", "rot & grün"]
CONTROLS = [*SPECIAL, START, "[UNK]", "<s>", "</s>", "<pad>", "##a"]
LETTERS = "".join([*GERMAN, *CONTROLS])
TEXTS = st.lists(st.sampled_from([*LETTERS, *CONTROLS, " "])).map("".join).map(clean)

IDS = ["characters", "words", "subwords"]
KINDS = pytest.mark.parametrize(
    "kind", [Characters(sorted(set("".join(GERMAN)))), words(GERMAN), subwords(GERMAN, 40)], ids=IDS
)


@KINDS
def test_text_is_what_it_was(kind):
    for text, numbers in zip(GERMAN, kind.encode(GERMAN), strict=True):
        assert kind.decode(numbers) == text and min(numbers) >= len(SPECIAL) and max(numbers) < len(kind)


@KINDS
def test_json_holds_all_of_it(kind):
    again = vocabulary(kind.json)
    assert type(again) is type(kind) and again.json == kind.json and len(again) == len(kind)
    assert again.encode(GERMAN) == kind.encode(GERMAN)


@KINDS
def test_what_is_unknown_is_one_number_and_no_text(kind):
    (numbers,) = kind.encode(["日 Haus" if isinstance(kind, Words) else "日Haus"])
    assert UNKNOWN in numbers and kind.decode(numbers).strip() == "Haus"
    assert kind.decode([0, 1, 2, 3]) == ""


@KINDS
def test_empty_text(kind):
    assert kind.encode([""]) == [[]] and kind.decode([]) == ""


def test_marks_are_pieces_of_their_own():
    learned = subwords(["red, red, red, red,"] * 10, 60)
    assert learned.pieces(learned.encode(["red,"])[0]) == ["▁red", ","]


def test_capitals_are_small_letters_only_where_there_were_none():
    uncased, cased = (subwords([f"{article} red house"] * 10, 60) for article in ("the", "The"))
    assert uncased.encode(["The RED house"]) == uncased.encode(["the red house"])
    assert cased.encode(["the red house"]) != cased.encode(["The red house"])


def test_frequent_words_are_one_piece_and_others_several():
    learned = subwords(["the house", "the tree", "the door"] * 10 + ["xylophone"], 40)
    assert learned.pieces(learned.encode(["the"])[0]) == ["▁the"]
    assert len(learned.encode(["xylophone"])[0]) > 1


@pytest.mark.parametrize("text", ["", "[]", "{", "null", json.dumps({"model": 3}), "3"])
def test_what_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match=r"^the vocabulary of the run is damaged: "):
        vocabulary(text)


@KINDS
def test_control_pieces_are_text_where_they_are_written(kind):
    for written in SPECIAL:
        for text in (written, f"ein {written} Haus", f"{written}{written}", f"a{written}"):
            (numbers,) = kind.encode([text])
            assert not set(numbers) & set(range(UNKNOWN)), "no padding, no beginning, no end"


KNOWING = pytest.mark.parametrize(
    "kind",
    [Characters(sorted(set(LETTERS))), subwords([*GERMAN, " ".join(CONTROLS)] * 9, 90)],
    ids=["characters", "subwords"],
)


@KNOWING
@given(text=TEXTS)
def test_any_text_of_known_characters_is_what_it_was(kind, text: str):
    (numbers,) = kind.encode([text])
    assert kind.decode(numbers) == text and min(numbers, default=len(SPECIAL)) >= len(SPECIAL)
    assert vocabulary(kind.json).encode([text]) == [numbers], "also in a run that is opened again"
    if isinstance(kind, Characters):
        return
    assert whole_words(kind.pieces(numbers))[0] == text.split()


def test_known_words_are_what_they_were_whatever_they_look_like():
    text = " ".join(["Haus", *CONTROLS, "▁▁a", "a▁"])
    kind = words([text])
    (numbers,) = kind.encode([text])
    assert kind.decode(numbers) == text and min(numbers) >= len(SPECIAL)
    assert whole_words(kind.pieces([*numbers[:1], 2]))[0] == ["Haus", "<end>"]


def test_words_are_those_that_occur_often_enough_the_most_frequent_first():
    assert words(["b a c", "c d b", "c"], least=2).words == ["c", "b"]
    assert words(["b a c", "c d b", "c"]).words == ["c", "b", "a", "d"]
    assert len(words([])) == len(SPECIAL)


def test_what_a_model_says_with_special_pieces_has_no_text():
    learned = subwords(GERMAN, 40)
    (house,) = learned.encode(["Haus"])
    assert learned.decode([1, *house, 2, 0, 0]) == "Haus"
