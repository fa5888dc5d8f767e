"""Sentence pairs: what is read, what is refused and in which words, and the tensors of a batch."""

import builtins
import datetime
import gzip
import re
from pathlib import Path

import pytest
import torch

from regard.app.data import translations
from regard.app.data.generators.dates import dates
from regard.app.data.pairs import LONGEST, Pairs, pairs_to_test
from regard.app.text.vocabulary import END, Characters

GERMAN = ["ein Haus", "ein rotes Haus", "das Haus, ein Baum", "rot & grün"]
ENGLISH = ["a house", "a red house", "the house, a tree", "red & green"]
COUNTS = {"train": 4, "val": 2, "test_2016": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three parts in two languages, some gzipped, some with the ends of lines of Windows."""
    for part, count in COUNTS.items():
        for language, texts in (("de", GERMAN), ("en", ENGLISH)):
            end = "\r\n" if part == "val" else "\n"
            data = "".join(text + end for text in texts[:count]).encode()
            if language == "de":
                (tmp_path / f"{part}.de.gz").write_bytes(gzip.compress(data))
            else:
                (tmp_path / f"{part}.en").write_bytes(data)
    return tmp_path


def test_a_folder_becomes_splits(folder: Path):
    splits = translations(folder, "de", "en", count=60)
    assert splits.describe == f"the files of {folder}, de to en: 4 training, 2 validation and 1 test pairs"
    assert (splits.train.sources, splits.train.targets) == (GERMAN, ENGLISH)
    assert splits.valid.targets == ENGLISH[:2] and splits.test.sources == GERMAN[:1]
    assert not splits.train.tokenised


def test_either_language_may_be_the_source(folder: Path):
    assert translations(folder, "en", "de", count=60).train.sources == ENGLISH


@pytest.mark.parametrize(("place", "tokenised"), [("tok", True), ("raw", False)])
def test_parts_may_lie_in_a_folder_below(folder: Path, place: str, tokenised: bool):
    (folder / place).mkdir()
    for file in list(folder.glob("*.*")):
        file.rename(folder / place / (file.name.replace(".", ".lc.norm.tok.", 1) if tokenised else file.name))
    splits = translations(folder, count=60)
    assert splits.train.tokenised == tokenised and str(folder / place) in splits.describe


def refused(folder: Path, sentence: str, source: str = "de", target: str = "en") -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        translations(folder, source, target)


def test_files_of_different_lengths_are_refused(folder: Path):
    (folder / "val.en").write_text("a house\n")
    refused(
        folder,
        f"val.de.gz and val.en expected as many lines, but have 2 and 1: which line translates which in {folder} is "
        "not known",
    )


@pytest.mark.parametrize("text", ["\n", "\n \n", "\u3000\n\u200b\n\ufeff"])
def test_files_without_sentences_are_refused(folder: Path, text: str):
    (folder / "train.en").write_text(text)
    refused(folder, f"{folder / 'train.en'} holds no sentence")


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)])
def test_empty_files_are_refused(folder: Path, data: bytes):
    file = folder / f"train.de{'.gz' if data else ''}"
    (folder / "train.de.gz").unlink()
    file.write_bytes(data)
    refused(folder, f"{file} is empty")


def test_another_encoding_is_refused(folder: Path):
    (folder / "val.en").write_bytes("a house\ngrün\n".encode("latin-1"))
    refused(folder, f"{folder / 'val.en'}, line 2: expected text in UTF-8, but got the byte 0xfc")


def test_a_language_that_is_not_there_is_refused(folder: Path):
    refused(folder, f"the language 'fr' is not in {folder}: there are de, en", target="fr")


def test_a_part_that_is_not_there_is_refused(folder: Path):
    (folder / "val.en").unlink()
    refused(folder, f"{folder} has no file val*.en or val*.en.gz, nor have its tok and raw")


def test_several_files_of_a_part_are_refused(folder: Path):
    (folder / "test_2017.en").write_text("a house\n")
    refused(folder, f"{folder} expected one file test*.en or .gz, but has 2")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    place = tmp_path / "nowhere"
    refused(place, f"data folder {place} does not exist; expected 'generated' or a folder of sentence pairs")


def test_a_damaged_archive_is_named(folder: Path):
    file = folder / "train.de.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))} is not a whole gzip file: "):
        translations(folder)


def test_without_the_extra_one_is_told_which(folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    refused(folder, "sentences from files need the extra text: pip install 'regard[text]'")
    assert len(translations().train) == 4000, "dates do not"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_pairs_are_the_same_however_their_text_is_written(folder: Path, end: str):
    before = translations(folder, count=60)
    for part, count in COUNTS.items():
        (folder / f"{part}.de.gz").unlink()
        texts = [text.replace(" ", "\u3000\t").replace("ü", "u\u0308") + "\u2028" for text in GERMAN[:count]]
        (folder / f"{part}.de").write_bytes(("\ufeff" + end.join(texts)).encode())
    after = translations(folder, count=60)
    assert after.train.vocabulary.json == before.train.vocabulary.json and after.describe == before.describe
    assert [split.sources for split in after[:3]] == [split.sources for split in before[:3]]


def written(folder: Path, part: str, sources: list[str], targets: list[str]) -> None:
    for old in [*folder.glob(f"{part}*")]:
        old.unlink()
    for language, texts in (("de", sources), ("en", targets)):
        (folder / f"{part}.{language}").write_text("".join(f"{text}\n" for text in texts))


def test_what_is_left_out_is_said(folder: Path):
    most = "x" * LONGEST
    written(folder, "train", [*GERMAN, "", "kein", " ", most, most + "x"], [*ENGLISH, "no", "\u200b", "", most, "no"])
    written(folder, "test", ["ein Haus", "ein Haus"], ["a house", "word " * 20_000])
    splits = translations(folder, count=60)
    assert (splits.train.sources, splits.train.targets) == ([*GERMAN, most], [*ENGLISH, most])
    assert splits.test.targets == ["a house"]
    assert splits.describe.endswith(
        ": 5 training, 2 validation and 1 test pairs; left out: 3 of the training pairs (a side is empty), "
        "1 of the training pairs (over 2,000 characters), 1 of the test pairs (over 2,000 characters)"
    )


def test_a_part_of_which_nothing_is_left_is_refused(folder: Path):
    written(folder, "val", ["ein Haus", ""], ["", "a house"])
    sentence = f"{folder / 'val.de'} and val.en hold no pair of sentences of at most 2,000 characters"
    refused(folder, sentence)


def test_the_test_part_alone_needs_no_other(folder: Path):
    splits = translations(folder, count=60)
    for file in [*folder.glob("train*"), *folder.glob("val*")]:
        file.unlink()
    alone = pairs_to_test(folder, "de", "en", splits.train.vocabulary)
    assert alone.describe == f"the files of {folder}, de to en: 1 test pairs"
    assert (len(alone.train), len(alone.valid)) == (0, 0) and alone.train.vocabulary is splits.train.vocabulary
    indices = torch.tensor([0])
    one, other = alone.test.batch(indices), splits.test.batch(indices)
    assert all(torch.equal(one[key], other[key]) for key in other)
    generated = translations()
    dates_alone = pairs_to_test("generated", "", "", generated.train.vocabulary).test
    assert dates_alone.sources == generated.test.sources and dates_alone.targets == generated.test.targets


def test_control_pieces_of_the_files_are_text(folder: Path):
    written(folder, "train", [*GERMAN, "<padding> Haus <end>"], [*ENGLISH, "<end> <unknown> <begin> house"])
    train = translations(folder, count=80).train
    for numbers in (train.source[-1], train.target[-1]):
        assert (numbers[:-1] > END).all() and numbers[-1] == END
    assert train.vocabulary.decode(train.target[-1].tolist()) == "<end> <unknown> <begin> house"


def test_a_batch(folder: Path):
    split = translations(folder, count=60).train
    batch = split.batch(torch.tensor([2, 0]))
    assert batch["source"].shape == (2, len(split.source[2])) and batch["target"].shape == (2, len(split.target[2]))
    for key, texts in (("source", GERMAN), ("target", ENGLISH)):
        for row, text in zip(batch[key], (texts[2], texts[0]), strict=True):
            numbers = row[row > 0].tolist()
            assert numbers[-1] == END and numbers.count(END) == 1
            assert split.vocabulary.decode(numbers) == text
    for row, text in zip(batch["text"], (ENGLISH[2], ENGLISH[0]), strict=True):
        assert bytes(row[row > 0].tolist()).decode() == text
    assert split.lengths.tolist() == [len(s) + len(t) for s, t in zip(split.source, split.target, strict=True)]


def test_an_empty_sentence_is_nothing_but_its_end():
    batch = Pairs(["", "ab"], ["b", ""], Characters("ab")).batch(torch.tensor([0, 1]))
    assert batch["source"].tolist() == [[END, 0, 0], [4, 5, END]]
    assert batch["text"].tolist() == [[ord("b")], [0]]


def test_dates_are_what_they_say():
    written, figures = dates(500, seed=3)
    for text, figure in zip(written, figures, strict=True):
        day = datetime.date.fromisoformat(figure)
        assert str(day.year) in text and re.search(rf"\b{day.day}(st|nd|rd|th|\b)", text)
        assert f"{day:%b}" in text and (f"{day:%a}" in text or "day" not in text)
    assert len({re.sub(r"[A-Z]\w+|\d+\w*", "", text) for text in written}) == 5
    assert dates(500, seed=3) == (written, figures) != dates(500, seed=4)


def test_multi30k(data_dir: Path):
    splits = translations(data_dir / "multi30k", "de", "en", count=4000)
    assert [len(split) for split in splits[:3]] == [29000, 1014, 1000]
    assert splits.train.tokenised and len(splits.train.vocabulary) == 4000
    assert splits.test.targets[0] == "a man in an orange hat starring at something ."
    decoded = [splits.test.vocabulary.decode(numbers.tolist()) for numbers in splits.test.target]
    assert sum(one != other for one, other in zip(decoded, splits.test.targets, strict=True)) < 5
