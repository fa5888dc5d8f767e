"""Texts with labels from every kind of file: what is read, how it is divided, and what is refused in which words."""

import gzip
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from regard.app.data.labelled import Labelled, labelled, labelled_to_test
from regard.app.text.vectors import lexicon

TEXTS = [(f"text {n} is {'good' if n % 2 else 'bad'}", "for" if n % 2 else "against") for n in range(40)]


def table(rows: list[tuple[str, str]], separator: str = ",") -> str:
    return "\n".join(separator.join(row) for row in [("text", "label"), *rows])


def said(splits) -> list[tuple[str, str]]:
    parts = (splits.train, splits.valid, splits.test)
    return [(text, splits.classes[n]) for part in parts for text, n in zip(part.texts, part.labels, strict=True)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_table_is_divided_with_its_labels_in_their_shares(tmp_path: Path, name: str):
    content = table(TEXTS, "\t" if "tsv" in name else ",").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    splits = labelled(tmp_path / name)
    assert [len(part) for part in splits[:3]] == [32, 4, 4]
    assert Counter(splits.test.labels.tolist()) == {0: 2, 1: 2}
    assert sorted(said(splits)) == sorted(TEXTS)
    assert splits.describe.endswith("32 training, 4 validation and 4 test texts")


def test_a_file_for_each_label(tmp_path: Path):
    for label in ("for", "against"):
        lines = [text for text, of in TEXTS if of == label]
        (tmp_path / f"{label}.txt").write_text("\n".join([*lines, " ", "\u200b"]), encoding="utf-8")
    splits = labelled(tmp_path)
    assert sorted(said(splits)) == sorted(TEXTS)
    assert "left out: 4 of the train texts (no word in them)" in splits.describe


def test_parts_that_are_given_are_kept(tmp_path: Path):
    (tmp_path / "train.csv").write_text(table(TEXTS[:20]))
    (tmp_path / "dev.tsv").write_text(table(TEXTS[20:30], "\t"))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "for.txt").write_text("a new text")
    splits = labelled(tmp_path)
    assert [len(part) for part in splits[:3]] == [20, 10, 1]
    assert splits.test.texts == ["a new text"] and splits.test.labels.tolist() == [1]
    assert len(labelled_to_test(tmp_path, splits.classes).test) == 1


def test_a_table_of_its_own_is_tested_whole(tmp_path: Path):
    (tmp_path / "new.csv").write_text(table(TEXTS[:5]))
    assert len(labelled_to_test(tmp_path / "new.csv", ("against", "for")).test) == 5


def test_quoted_cells_hold_commas_and_lines(tmp_path: Path):
    rows = [('"one, ""two""\nthree"', "for"), *TEXTS]
    (tmp_path / "a.csv").write_text(table(rows))
    assert ('one , " two " three', "for") in said(labelled(tmp_path / "a.csv"))


def test_columns_are_found_by_name(tmp_path: Path):
    (tmp_path / "a.csv").write_text("Label,id,TEXT\n" + "\n".join(f"{label},7,{text}" for text, label in TEXTS))
    assert sorted(said(labelled(tmp_path / "a.csv"))) == sorted(TEXTS)


def test_a_batch_is_the_words_as_numbers_and_as_written():
    split = Labelled(["a red car", "a zebra"], torch.tensor([1, 0]), lexicon(["a red car"]))
    batch = split.batch(torch.tensor([1, 0]))
    a, red, car = split.lexicon.vocabulary.encode(["a red car"])[0]
    assert batch["words"].tolist() == [[a, 3, 0], [a, red, car]] and batch["label"].tolist() == [0, 1]
    assert bytes(batch["text"][0][batch["text"][0] > 0].tolist()) == b"a zebra"
    assert split.lengths.tolist() == [3, 2]


TABLE = table(TEXTS)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.csv", "one,two\n1,2", "expected a column text and a column label, named in the first line, but that has 'one'"),
    ("a.csv", table([*TEXTS, ("lost",)]), "line 42: expected 2 columns at least, but got 1"),
    ("a.csv", table([*TEXTS, ("lost", " ")]), "line 42: expected a label, but it is empty"),
    ("a.csv", table(TEXTS[:4]), "expected at least 10 texts to hold a tenth out of, but has 4"),
    ("a.csv", table([(text, "for") for text, _ in TEXTS]), "expected two labels at least, but all are labelled 'for'"),
    ("a.csv", "text,label\n" + "\n".join(f"{text},x" for text in ".  "), "expected at least 10 texts"),
    ("a.csv", "text,label\n  ,x", "the train part holds no text of 1 to 2,000 words"),
    ("a.csv", "text,label\n" + "a" * 200_000 + ",x", "line 2: field larger than field limit"),
    ("a.csv", b"text,label\ncaf\xe9,x", "line 2: expected text in UTF-8, but got the byte 0xe9"),
    ("a.csv", "", "is empty"),
    ("a.json", TABLE, "expected a table, .csv or .tsv, or a folder"),
])  # fmt: skip
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str | bytes, said: str):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=re.escape(said)):
        labelled(tmp_path / name)


def test_folders_without_texts_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected tables train.csv or files LABEL.txt, but has neither"):
        labelled(tmp_path)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        labelled(tmp_path / "nowhere.csv")
    for ending in ("csv", "tsv"):
        (tmp_path / f"train.{ending}").write_text(TABLE)
    with pytest.raises(ValueError, match="expected one table train, but has 2"):
        labelled(tmp_path)


def test_a_label_that_training_has_not_is_named(tmp_path: Path):
    (tmp_path / "train.csv").write_text(TABLE)
    (tmp_path / "test.csv").write_text(table([("what", "perhaps")]))
    wanted = r"the test part of .* has the label 'perhaps', which is not one to learn: these are 'against', 'for'"
    with pytest.raises(ValueError, match=wanted):
        labelled(tmp_path)
    with pytest.raises(ValueError, match=wanted):
        labelled_to_test(tmp_path, ("against", "for"))


def test_long_texts_are_left_out(tmp_path: Path):
    (tmp_path / "a.csv").write_text(table([*TEXTS, ("word " * 2001, "for")]))
    assert "left out: 1 of the train texts (over 2,000 words)" in labelled(tmp_path / "a.csv").describe


def test_generated_questions_are_the_same_each_time():
    one, other = labelled(), labelled()
    assert one.train.texts == other.train.texts != one.test.texts
    assert len(one.classes) == 6 and min(Counter(one.train.labels.tolist()).values()) > 200
