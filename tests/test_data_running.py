"""Running text: streams that are read in order, and passages."""

import re
import zipfile
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from regard.app.data.running import ALICE, Passages, Streams, beginning, running
from regard.app.training.batches import training_batches


def test_streams_go_on_from_batch_to_batch():
    streams = Streams(torch.arange(1000, 1101), rows=4, steps=5)
    assert len(streams) == 20 and streams.pieces == 5
    read = [streams.batch(batch.indices) for batch in training_batches(20, 4, 0, 0, in_order=True)]
    words = torch.cat([batch["words"] for batch in read], 1)
    assert_close(words, torch.arange(1000, 1100).view(4, 25))
    assert_close(torch.cat([batch["target"] for batch in read], 1), words + 1)
    assert [batch["first"].tolist() for batch in read] == [[True] * 4] + [[False] * 4] * 4


def test_passages_ask_for_every_word_once_but_the_first():
    passages = Passages(torch.arange(100, 123), steps=4, before=6)
    batch = passages.batch(torch.arange(len(passages)))
    asked = batch["target"] > 0
    assert batch["target"][asked].tolist() == list(range(101, 123))
    assert_close(batch["words"][asked] + 1, batch["target"][asked])
    assert batch["words"][2].tolist() == [102, 103, 104, 105, 106, 107, 108, 109, 110, 111]
    assert batch["first"].all() and not asked[:, :6].any()


def test_the_book_that_comes_along():
    splits = running("embedded", rows=4, steps=10, before=5)
    assert splits.describe.startswith("Alice in Wonderland: 27,990 words to learn from, 3,499 to be judged by")
    vocabulary = splits.valid.vocabulary
    start = vocabulary.decode(splits.train.numbers[:40].tolist())
    assert "alice was beginning to get very tired of sitting by her sister" in start
    assert ALICE.stat().st_size < 60_000


def test_a_file_of_ones_own(tmp_path: Path):
    file = tmp_path / "book.txt"
    file.write_text("The cat sat.\n" * 400 + "Unseen words at the end.\n")
    splits = running(file, rows=4, steps=10, before=5)
    assert set(splits.valid.vocabulary.words) == {"the", "cat", "sat", "."}
    assert splits.test.numbers[-6:].tolist()[:2] == [3, 3]
    again = running(file, 4, 10, 5, splits.valid.vocabulary)
    assert torch.equal(again.train.numbers, splits.train.numbers)


@pytest.mark.unchecked
def test_brown_is_parted_as_by_bengio(data_dir: Path):
    splits = running(data_dir / "brown", rows=20, steps=35, before=60)
    assert len(splits.train.numbers) == 800_000 and len(splits.valid.numbers) == 50_000
    assert len(splits.test.numbers) == 161_192 and len(splits.valid.vocabulary) == 17_904 + 4
    start = splits.valid.vocabulary.decode(splits.train.numbers[:12].tolist())
    assert start.startswith("The Fulton County Grand Jury said Friday an investigation of")


@pytest.mark.parametrize(("content", "said"), [
    (b"few words", "expected 1,000 words or more, but has 2"),
    (b"caf\xe9 " * 2000, "expected text in UTF-8"),
    (b"", "is empty"),
])  # fmt: skip
def test_bad_files(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "book.txt").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)):
        running(tmp_path / "book.txt", rows=2, steps=10, before=5)


def test_streams_that_are_too_short(tmp_path: Path):
    (tmp_path / "book.txt").write_text("a b " * 1000)
    with pytest.raises(ValueError, match="expected 12,502 words or more, but has 2,000"):
        running(tmp_path / "book.txt", rows=100, steps=100, before=5)


def test_a_damaged_archive(tmp_path: Path):
    (tmp_path / "brown.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="is no zip archive"):
        running(tmp_path, rows=2, steps=10, before=5)
    with zipfile.ZipFile(tmp_path / "brown.zip", "w") as archive:
        archive.writestr("brown/ca01", "a/at word/nn")
    with pytest.raises(ValueError, match="expected 1,000 words or more, but has 2"):
        running(tmp_path, rows=2, steps=10, before=5)


def test_beginnings_are_cased_as_the_words_are():
    splits = running("embedded", rows=4, steps=10, before=5)
    assert beginning("The Queen", splits.valid.vocabulary) == ["the", "queen"]
    with pytest.raises(ValueError, match="expected a text with a word in it, but got ' '"):
        beginning(" ", splits.valid.vocabulary)
