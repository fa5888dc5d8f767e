"""Files of data: every reader says the same of what is missing, unreadable, damaged or empty."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from regard.app.data import conllu, mnist
from regard.app.data.files import contents, left_out, sentences

READERS: list[Callable[[Path], object]] = [contents, sentences, conllu.read, lambda file: mnist.read_idx(file, rank=1)]


@pytest.fixture(params=READERS, ids=["contents", "sentences", "conllu", "mnist"])
def refused(request: pytest.FixtureRequest):
    def check(file: Path, sentence: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(str(file))} {sentence}"):
            request.param(file)

    return check


def test_missing_and_unreadable(refused, tmp_path: Path):
    refused(tmp_path / "nowhere.txt", "cannot be read: No such file or directory$")
    refused(tmp_path / "nowhere.gz", "cannot be read: No such file or directory$")
    refused(tmp_path, "cannot be read: Is a directory$")


@pytest.mark.parametrize("name", ["a.txt", "a.gz"])
def test_empty(refused, name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(gzip.compress(b"") if name == "a.gz" else b"")
    refused(tmp_path / name, "is empty$")


@pytest.mark.parametrize("damage", ["cut", "no gzip", "bytes"])
def test_damaged_gzip(refused, damage: str, tmp_path: Path):
    whole = gzip.compress(bytes(range(256)) * 9)
    data = {"cut": whole[:-9], "no gzip": b"text", "bytes": whole[:30] + bytes(20) + whole[50:]}[damage]
    (tmp_path / "a.gz").write_bytes(data)
    refused(tmp_path / "a.gz", "is not a whole gzip file: ")


def test_what_is_whole_is_read_alike(tmp_path: Path):
    text = "ein\u00a0 Haus\r\nein Baum"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.txt", "a.gz"):
        assert contents(tmp_path / name).decode() == text
        assert sentences(tmp_path / name) == ["ein Haus", "ein Baum"]


def test_nothing_left_out_is_nothing_said():
    assert left_out({}) == left_out({"pairs": 0}) == ""
    assert left_out({"a": 1200, "b": 0, "c": 1}) == "; left out: 1,200 of the a, 1 of the c"
