"""Sentences with labels: what is read of files of columns and of CoNLL-U, and what is wrong with a file in words."""

import gzip
from pathlib import Path

import pytest
import torch

from regard.app.data.tagged import Labels, read, tagged, tagged_to_test, untagged

TRAIN = "".join(f"In IN O\nOslo{n} NNP B-LOC\nBay NNP I-LOC\n\n" for n in range(20))
CONLLU = """# text = Go there
1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
2-3\tthere\t_\t_\t_\t_\t_\t_\t_\t_
2\tthe\tthe\tDET\tDT\t_\t1\tdet\t_\t_
3\tre\tre\tX\tX\t_\t1\tdep\t_\t_
3.1\tx\tx\tX\tX\t_\t_\t_\t_\t_

"""


def folder(path: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (path / f"{name}.txt").write_text(text)
    return path


def test_columns_and_what_stands_between_them(tmp_path: Path):
    splits = tagged(folder(tmp_path, train=TRAIN, dev="Lima NNP I-LOC\n", test="In IN O\n\n\nLima NNP B-LOC"))
    assert splits.classes == ("B-LOC", "I-LOC", "O")
    assert [len(each) for each in splits[:3]] == [20, 1, 2]
    assert splits.valid.sentences == [Labels(("Lima",), ("NNP",), ("B-LOC",))], "read by conlleval's rules"
    batch = splits.train.batch(torch.tensor([3, 4]))
    assert batch["labels"].tolist() == [[2, 0, 1]] * 2
    assert batch["features"][0, 1] == batch["features"][0, 2] != batch["features"][0, 0]
    names = batch["names"][batch["words"]]
    assert names[0, 1] == names[1, 1], "words are alike for all digits"
    assert not torch.equal(batch["forms"][batch["words"][0, 1]], batch["forms"][batch["words"][1, 1]])


def test_tabs_part_columns_in_which_there_are_spaces(tmp_path: Path):
    (tmp_path / "a.tsv").write_text("New York\tB-LOC\n")
    assert read(tmp_path / "a.tsv")[0].words == ("New York",)


def test_another_column(tmp_path: Path):
    splits = tagged(folder(tmp_path, train=TRAIN), column=2)
    assert splits.classes == ("IN", "NNP")
    assert [len(each) for each in splits[:3]] == [16, 2, 2]


def test_parts_of_speech_of_conllu(tmp_path: Path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"xx-ud-{part}.conllu.gz").write_bytes(gzip.compress((CONLLU * 3).encode()))
    splits = tagged(tmp_path)
    assert splits.train.sentences[0] == Labels(("Go", "the", "re"), ("go", "the", "re"), ("VERB", "DET", "X"))
    assert splits.classes == ("DET", "VERB", "X")
    assert tagged(tmp_path, column=8).classes == ("dep", "det", "root")


def test_documents_begin_with_no_sentence(tmp_path: Path):
    splits = tagged(folder(tmp_path, train="-DOCSTART- -X- O\n\n" + TRAIN))
    assert sum(len(each) for each in splits[:3]) == 20


def test_a_file_alone(tmp_path: Path):
    file = folder(tmp_path, all=TRAIN) / "all.txt"
    splits = tagged(file)
    assert [len(each) for each in splits[:3]] == [16, 2, 2]
    assert len(tagged_to_test(file, 0, splits.classes).test) == 20


def test_long_sentences_are_left_out_and_counted(tmp_path: Path):
    splits = tagged(folder(tmp_path, train=TRAIN + "a b O\n" * 2001 + "\n", test="In IN O\n\n" + "a" * 1001 + " b O"))
    assert "1 of the train sentences (over 2,000 words, or a word of over 1,000 characters)" in splits.describe
    assert len(splits.test) == 1


def test_words_without_labels():
    batch = untagged([["Go", "on"], ["Go"]]).batch(torch.arange(2))
    assert (batch["labels"] == -1).all() and batch["words"].tolist() == [[0, 1], [0, -1]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"train": ""}, "train.txt is empty"),
        ({"train": "\n\n"}, "train.txt holds no sentence"),
        ({"train": "a b O\na O\n"}, "train.txt, line 2: expected 3 columns, but got 2"),
        ({"train": "a\n"}, "train.txt, line 1: expected a word and its label, but got 1 column"),
        ({"train": "a \tO\n\t\u200b\tO\n"}, "train.txt, line 2: expected 2 columns, but got 3"),
        ({"train": "\tO\n"}, "train.txt, line 1: expected a word and its label, but one of them is empty"),
        (
            {"train": TRAIN, "test": "a b B-PER\n"},
            "label 'B-PER', which is not one to learn: these are 'B-LOC'",
        ),
        ({"test": TRAIN}, "expected a file that ends in train, such as train.txt, but has none"),
        ({"train": TRAIN, "my_train": TRAIN}, "expected one file to end in train, but has my_train.txt, train.txt"),
        ({"train": "a O\n\n" * 9}, "expected 10 sentences to hold a tenth out of, but has 9"),
        ({}, "expected files such as train.txt and test.txt, but has none"),
    ],
)
def test_what_is_refused(texts: dict[str, str], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        tagged(folder(tmp_path, **texts))


def test_more_that_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere does not exist; expected 'generated', a file"):
        tagged(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="line 1: expected a label in column 7, but got 3 columns"):
        tagged(folder(tmp_path, train=TRAIN), column=7)
    (tmp_path / "train.txt").write_bytes(b"caf\xe9 O\n")
    with pytest.raises(ValueError, match=r"train.txt, line 1: expected text in UTF-8, but got the byte 0xe9"):
        tagged(tmp_path)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "train.conllu").write_text("1\tGo\n")
    with pytest.raises(ValueError, match=r"train.conllu, line 1: expected 10 columns, but got 2"):
        tagged(tmp_path)
