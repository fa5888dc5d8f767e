"""Texts with marked words: what is read of ERASER's form, of brackets in tables, and what is refused in which words."""

import io
import json
import lzma
import re
import tarfile
from pathlib import Path

import pytest
import torch

from regard.app.data.generators.reviews import OPINIONS, reviews
from regard.app.data.rationales import Rationales, rationales, rationales_to_test, unlabelled, unmarked
from regard.app.text.vectors import lexicon

DOCUMENTS = {f"{label}{n}.txt": f"it is\na {word} Film {n}" for label, word in (("NEG", "dull"), ("POS", "moving"))
             for n in range(20)}  # fmt: skip


def row(name: str, **changes) -> dict:
    span = {"docid": name, "start_token": 2, "end_token": 4, "text": "unused"}
    return {"annotation_id": name, "classification": name[:3], "evidences": [[span]], "query": "unused"} | changes


def listed(folder: Path, part: str, rows: list[dict], ending: str = "") -> None:
    data = "\n".join(json.dumps(each) for each in rows).encode()
    (folder / f"{part}.jsonl{ending}").write_bytes(lzma.compress(data) if ending else data)


@pytest.fixture(params=["folder", "archive"])
def movies(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder as ERASER has them; two training texts are in the validation part, too."""
    if request.param == "folder":
        (tmp_path / "docs").mkdir()
        for name, text in DOCUMENTS.items():
            (tmp_path / "docs" / name).write_text(text)
    else:
        with tarfile.open(tmp_path / "docs.tar.xz", "w:xz") as archive:
            for name, text in DOCUMENTS.items():
                member = tarfile.TarInfo(f"docs/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    names = [*DOCUMENTS]
    listed(tmp_path, "train", [row(name) for name in (*names[:12], *names[20:32], names[12], names[32])], ".xz")
    listed(tmp_path, "val", [row(name) for name in (*names[12:15], *names[32:35])], ".xz")
    listed(tmp_path, "test", [row(name, evidences=[]) for name in names[18:22]])
    return tmp_path


def test_a_folder_of_eraser(movies: Path):
    splits = rationales(movies)
    assert splits.describe.endswith(
        "22 training, 6 validation and 4 test texts; left out: 4 of the training texts (in another part, too)"
    )
    assert splits.classes == ("NEG", "POS")
    assert splits.valid.texts[0] == "it is a dull film 12" and splits.valid.labels.tolist() == [0] * 3 + [1] * 3
    batch = splits.valid.batch(torch.tensor([0, 5]))
    assert batch["marked"].tolist() == [[False, False, True, True, False, False]] * 2
    assert not splits.test.batch(torch.arange(4))["marked"].any()
    alone = rationales_to_test(movies, splits.classes)
    assert alone.test.texts == splits.test.texts and len(alone.train) == 0


def test_parts_that_are_missing_are_held_out(movies: Path):
    (movies / "val.jsonl.xz").unlink()
    (movies / "test.jsonl").unlink()
    splits = rationales(movies)
    assert [len(part) for part in splits[:3]] == [20, 3, 3]
    parts = [set(part.texts) for part in splits[:3]]
    assert sum(map(len, parts)) == 26 and len(set.union(*parts)) == 26


@pytest.mark.parametrize(("changes", "said"), [
    ({"evidences": [[{"docid": "NEG0.txt", "start_token": 2, "end_token": 9}]]},
     "line 1: expected a span of 6 words, but got 2:9"),
    ({"evidences": [[{"docid": "none.txt", "start_token": 0, "end_token": 1}]]},
     "expected a document 'none.txt', but has none of that name"),
    ({"evidences": 3}, "line 1: expected a line of JSON with annotation_id, classification and evidences"),
    ({"classification": "SO-SO"}, "has the label 'SO-SO', which is not one to learn: these are 'NEG', 'POS'"),
])  # fmt: skip
def test_what_is_damaged_is_said(movies: Path, changes: dict, said: str):
    listed(movies, "test", [row("NEG0.txt", **changes)])
    with pytest.raises(ValueError, match=re.escape(said)):
        rationales(movies)


def test_without_documents_or_training_part(tmp_path: Path):
    listed(tmp_path, "test", [row("NEG0.txt")])
    with pytest.raises(ValueError, match=r"expected a folder docs or an archive docs\.tar, but has neither"):
        rationales(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "NEG0.txt").write_text("it is a dull film")
    with pytest.raises(ValueError, match=r"expected a file train\.jsonl, but has none"):
        rationales(tmp_path)
    (tmp_path / "docs.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(ValueError, match=r"docs\.tar is not a whole archive"):
        rationales(tmp_path)


def test_brackets_in_a_table_are_marks(tmp_path: Path):
    rows = [f"a {'[[truly moving]]' if n % 2 else 'dull'} film {n},{'for' if n % 2 else 'against'}" for n in range(40)]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]))
    splits = rationales(tmp_path / "own.csv")
    assert len(splits.train) == 32 and "[" not in splits.train.lexicon.vocabulary.words
    part: Rationales = splits.train  # pyright: ignore
    for text, label, marked in zip(part.texts, part.labels.tolist(), part.marked, strict=True):
        assert [word for word, mark in zip(text.split(), marked.tolist(), strict=True) if mark] == [
            *(["truly", "moving"] if label else [])
        ]


def test_brackets_that_do_not_match_are_text():
    assert unmarked("a [ [ dull film") == ("a [ [ dull film", [False] * 5)
    assert unmarked("[ [ a ] ] b [ [ c d ] ]") == ("a b c d", [True, False, True, True])


def test_texts_without_a_label():
    texts = unlabelled(["a [ [ dull ] ] film"], lexicon(["a film"]))
    batch = texts.batch(torch.tensor([0]))
    assert batch["label"].tolist() == [-1] and batch["marked"].tolist() == [[False, True, False]]
    assert batch["words"][0, 1] != batch["words"][0, 0]


def test_generated_reviews_mark_what_is_said_of_the_film():
    written = reviews(200, seed=0)
    assert written == reviews(200, seed=0) != reviews(200, seed=1)
    sided = 0
    for text, label in written:
        opinions = re.findall(r"\[\[(.*?)\]\]", text)
        sides = [next(side for side, all_ in OPINIONS.items() if opinion in all_) for opinion in opinions]
        assert 2 <= len(opinions) <= 3 and sides.count(label) > len(sides) / 2
        sided += len(set(sides)) > 1
    assert 0 < sided < 40
