"""Word vectors: every form of file gives the same, what is damaged is named, and what a network makes of them."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from regard.app.text.tokens import tokens
from regard.app.text.vectors import Vectors, WordVectors, lexicon, read_vectors
from regard.app.text.vocabulary import SPECIAL, UNKNOWN

WORDS = ["the", "Grün", ". . ."]
ROWS = np.array([[0.5, -1.0], [2.0, 0.25], [3.0, 4.0]], dtype=np.float32)


def text(header: str = "", end: str = "\n") -> bytes:
    lines = (f"{word} {one} {other}" for word, (one, other) in zip(WORDS, ROWS, strict=True))
    return (header + end.join([*lines, ""])).encode()


def binary(newline: bytes = b"\n") -> bytes:
    rows = (
        word.encode() + b" " + struct.pack("<2f", *row) + newline for word, row in zip(WORDS[:2], ROWS, strict=False)
    )
    return b"2 2\n" + b"".join(rows)


@pytest.mark.parametrize(("name", "content"), [
    ("glove.txt", text()),
    ("glove.txt", text(end="\r\n")),
    ("word2vec.vec", text("3 2\n")),
    ("glove.txt.gz", gzip.compress(text(), mtime=0)),
])  # fmt: skip
def test_text_is_read_in_every_form(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    found = read_vectors(tmp_path / name)
    assert found.words == WORDS
    assert_close(found.vectors, torch.from_numpy(ROWS))


@pytest.mark.parametrize("newline", [b"\n", b""])
@pytest.mark.parametrize("name", ["google.bin", "google.bin.gz"])
def test_the_binary_form_is_read(tmp_path: Path, name: str, newline: bytes):
    content = binary(newline)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = read_vectors(tmp_path / name)
    assert found.words == WORDS[:2]
    assert_close(found.vectors, torch.from_numpy(ROWS[:2]))


def test_arrays_are_read_and_no_more_words_than_asked_for(tmp_path: Path):
    np.savez(tmp_path / "a.npz", words=np.array(WORDS), vectors=ROWS.astype(np.float16))
    found = read_vectors(tmp_path / "a.npz", most=2)
    assert found.words == WORDS[:2] and found.vectors.dtype == torch.float32
    (tmp_path / "a.txt").write_bytes(text() + b"this line is damaged, and is not read")
    assert read_vectors(tmp_path / "a.txt", most=3).words == WORDS


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.txt", b"the 1 2\nof 1\n", "line 2: expected a word and 2 numbers, but got 'of 1'"),
    ("a.txt", b"the 1 2\nof 1 x\n", "line 2: expected a word and 2 numbers, but got 'of 1 x'"),
    ("a.txt", b"5 2\nthe 1 2 3\n\n", "line 3: expected a word and 2 numbers"),
    ("a.txt", b"the\n", "line 1: expected a word and 0 numbers"),
    ("a.txt", b"caf\xe9 1 2\n", "line 1: expected text in UTF-8, but got the byte 0xe9"),
    ("a.txt", b"the 1 nan\n", "expected finite numbers, but the vector of 'the' has others"),
    ("a.txt", b"2 2\n", "holds no word vectors"),
    ("a.bin", b"the 1 2\n", "expected the number of words and of numbers in its first line"),
    ("a.bin", binary()[:-6], "expected 2 words with 2 numbers each, but ends after 1"),
    ("a.txt.gz", b"the 1 2\n", "cannot be read: Not a gzipped file"),
    ("a.npz", b"the 1 2\n", "expected an archive of two arrays, words of text and vectors"),
    ("a.npz", b"PK\3\4 1 2\n", "cannot be read: File is not a zip file"),
])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, said: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        read_vectors(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(("arrays", "said"), [
    ({"words": np.array(WORDS)}, "expected an archive of two arrays"),
    ({"words": np.array(WORDS), "vectors": ROWS[:2]}, "expected as many words as rows of numbers"),
    ({"words": np.array(WORDS), "vectors": ROWS[0]}, "expected as many words as rows of numbers"),
    ({"words": np.array(WORDS, dtype=object), "vectors": ROWS}, "expected an archive of two arrays"),
])  # fmt: skip
def test_arrays_that_are_no_vectors_are_named(tmp_path: Path, arrays: dict, said: str):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=said):
        read_vectors(tmp_path / "a.npz")


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"nowhere.txt cannot be read: No such file or directory"):
        read_vectors("nowhere.txt")


def test_words_are_those_of_the_texts_then_those_with_vectors():
    given = Vectors(["Red", "red", "blue"], torch.tensor([[1.0], [9.0], [3.0]]))
    found = lexicon(["a red car", "a red bus"], given)
    assert found.vocabulary.words == ["a", "red", "bus", "car", "blue"]
    assert found.seen == len(SPECIAL) + 4
    scale = given.vectors.std()
    assert_close(found.vectors[len(SPECIAL) :] * scale, torch.tensor([[0.0], [1.0], [0.0], [0.0], [3.0]]))


@pytest.mark.parametrize("learn", ["no", "yes", "beside"])
def test_what_is_learned_and_what_is_not(learn):
    given = Vectors(["red", "blue"], torch.tensor([[1.0, 0.0], [3.0, 1.0]]))
    found = lexicon(["a red car"], given)
    vectors = WordVectors(found, learn, size=7)
    red, blue = found.vocabulary.encode(["red blue"])[0]
    words = torch.tensor([[red, blue, UNKNOWN]])
    before = vectors(words)
    assert before.shape == (1, 3, vectors.size) and vectors.size == (4 if learn == "beside" else 2)
    assert_close(before[0, 0, :2], found.vectors[red])
    assert_close(before[0, 1, -2:], found.vectors[blue])
    if learn != "no":
        vectors.learned.weight.data += 1  # pyright: ignore[reportOptionalMemberAccess]
    change = (vectors(words) - before)[0]
    assert_close(change[:, -2:], torch.tensor([1.0, 0.0, 1.0]).unsqueeze(-1).expand(3, 2) * (learn != "no"))
    if learn == "beside":
        assert not change[:, :2].any()


def test_without_given_vectors_they_are_learned():
    vectors = WordVectors(lexicon(["a red car"]), "beside", size=7)
    assert vectors.size == 7 and vectors(torch.tensor([[4, 5, 6]])).requires_grad


@pytest.mark.parametrize(("text", "words"), [
    ("I can't; they'd WON'T", ["i", "ca", "n't", ";", "they", "'d", "wo", "n't"]),
    ("n't 'tis rock 'n' roll", ["n't", "'", "tis", "rock", "'", "n", "'", "roll"]),
    ("3.5 café_x", ["3", ".", "5", "café_x"]),
    (" \t", []),
])  # fmt: skip
def test_words_and_marks(text: str, words: list[str]):
    assert tokens(text) == words
