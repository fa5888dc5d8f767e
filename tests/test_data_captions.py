"""Pictures with captions: what belongs together, what is left out, and what is refused in one sentence."""

import csv
import io
import json
import lzma
import os
import re
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regard.app.data import Captions, captioned, captions_to_test
from regard.app.data.caption_files import said, stored
from regard.app.data.caption_folder import LONGEST, spoken
from regard.app.text.vocabulary import END, UNKNOWN, Words


def paint(file: Path, value: int = 255, size=(40, 30)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 100)).save(file)


def table(folder: Path, rows: list[tuple[Any, ...]], name: str = "captions.csv", header: str = "image,caption") -> Path:
    """A table of captions in a folder."""
    text = io.StringIO()
    csv.writer(text).writerows([header.split(","), *rows] if header else rows)
    (folder / name).write_text(text.getvalue(), encoding="utf-8")
    return folder


def album(folder: Path, count: int = 20, **options) -> Path:
    """A folder of pictures 000.png, ... with two captions each, picture n of the colour n."""
    for n in range(count):
        paint(folder / f"{n:03}.png", n)
    rows = [(f"{n:03}.png", f"{what} number {n}") for n in range(count) for what in ("Picture", "image")]
    return table(folder, rows, **options)


def texts(split: Captions) -> list[list[str]]:
    batch = split.batch(torch.arange(len(split)))
    return [bytes(text[text > 0].tolist()).decode().split("\n") for text in batch["text"]]


def colours(split: Captions) -> list[int]:
    return (split.batch(torch.arange(len(split)))["picture"][:, 0, 0, 0] * 255).round().int().tolist()


def refused(sentence: str):
    return pytest.raises(ValueError, match=f"^{re.escape(sentence)}$")


class TestWords:
    """What a caption is taken for."""

    def test_marks_are_dropped_and_words_stay_whole(self):
        assert spoken("Woman: medium-light skin tone, blond hair!") == "woman medium-light skin tone blond hair"
        assert spoken("\ufeffA  man’s hat -- (red) ... is 'blue'.\n") == "a man's hat red is 'blue'"
        assert spoken("keycap: #") == "keycap #" and spoken("Ein Café; zwei?") == "ein café zwei"
        assert spoken(" .,! - ") == "" and spoken("हिन्दी में") == "हिन्दी में"

    def test_the_vocabulary_is_of_the_training_captions(self, tmp_path: Path):
        splits = captioned(album(tmp_path))
        known = {word for each in texts(splits.train) for text in each for word in text.split()}
        assert set(splits.train.vocabulary.words) == known
        assert splits.train.vocabulary is splits.valid.vocabulary is splits.test.vocabulary
        assert captioned(tmp_path, least=3).test.vocabulary.words == ["number", "image", "picture"]
        with refused("least must be how often a word occurs, one or more, not 0"):
            captioned(tmp_path, least=0)


class TestBatch:
    """The tensors of some pictures."""

    def test_pictures_captions_and_all_texts(self, tmp_path: Path):
        splits = captioned(album(tmp_path))
        batch = splits.train.batch(torch.tensor([4, 0]))
        assert {name: (each.shape, each.dtype) for name, each in batch.items()} == {
            "picture": (torch.Size([2, 3, 30, 40]), torch.float32),
            "caption": (torch.Size([2, 4]), torch.int64),
            "text": (torch.Size([2, 31]), torch.uint8),
            "index": (torch.Size([2]), torch.int64),
        }
        for text, colour in zip(texts(splits.train), colours(splits.train), strict=True):
            assert text == [f"picture number {colour}", f"image number {colour}"]
        assert batch["index"].tolist() == [4, 0] and float(batch["picture"].max()) <= 1
        assert batch["caption"][:, -1].tolist() == [END, END]
        assert splits.train.vocabulary.decode(batch["caption"][1].tolist()) == texts(splits.train)[0][0]

    def test_a_caption_is_drawn_in_training_and_else_the_first(self, tmp_path: Path):
        train = captioned(album(tmp_path)).train
        indices, first = torch.zeros(400).long(), train.vocabulary.encode(["picture"])[0][0]
        drawn = [train.batch(indices, torch.Generator().manual_seed(seed))["caption"] for seed in (0, 0, 1)]
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
        assert 150 < int((drawn[0][:, 0] == first).sum()) < 250
        assert (train.batch(indices)["caption"][:, 0] == first).all()

    def test_only_as_wide_as_the_longest_caption_of_the_batch(self, tmp_path: Path):
        paint(tmp_path / "a.png")
        paint(tmp_path / "b.png")
        rows = [("a.png", "one two three", "train"), ("b.png", "one", "train")]
        rows += [(f"{name}.png", "one", part) for name, part in (("c", "valid"), ("d", "test"))]
        for name in "cd":
            paint(tmp_path / f"{name}.png")
        train = captioned(table(tmp_path, rows, header="image,caption,split")).train
        assert train.batch(torch.tensor([1]))["caption"].tolist() == [[4, END]]
        assert train.batch(torch.tensor([1, 0]))["caption"].tolist() == [[4, END, 0, 0], [4, 6, 5, END]]

    def test_in_the_words_of_another_vocabulary(self, tmp_path: Path):
        splits = captioned(album(tmp_path))
        other = splits.train.spelled_by(Words(["number"]))
        assert other.batch(torch.tensor([0]))["caption"].tolist() == [[UNKNOWN, 4, UNKNOWN, END]]
        assert texts(other) == texts(splits.train) and splits.train.vocabulary.words != ["number"]

    def test_features_take_the_place_of_pictures(self, tmp_path: Path):
        splits = captioned(album(tmp_path))
        features = np.random.default_rng(0).random((len(splits.train), 6, 5)).astype(np.float16)
        batch = splits.train.with_features(features).batch(torch.tensor([3, 1]), torch.Generator())
        assert "picture" not in batch and batch["features"].dtype == torch.float32
        assert torch.equal(batch["features"], torch.from_numpy(features[[3, 1]]).float())
        assert not splits.train.pixels.known.any(), "no picture is decoded"
        with refused("expected the features of 2 pictures, but got those of 16"):
            splits.test.with_features(features)

    def test_captions_of_other_pictures_are_beside_those_that_are_learned(self, tmp_path: Path):
        held_out = captioned(album(tmp_path)).test.pixels.files[0].name
        others = [f"{held_out},a held out caption", *(f"other{n}.png,caption {'long ' * n}" for n in range(50))]
        (tmp_path / "more.csv").write_text("\n".join(["image,caption", *others, "empty.png,!"]))
        splits = captioned(album(tmp_path), others=tmp_path / "more.csv")
        assert splits.describe.endswith("; 50 captions without pictures")
        assert not any("held out" in text for text in splits.train.others)
        batch = splits.train.batch(torch.tensor([3, 1]), torch.Generator().manual_seed(0))
        assert len(batch["others"]) == 8 and (batch["others"] > 0).any(0).all()
        again = splits.train.batch(torch.tensor([3, 1]), torch.Generator().manual_seed(0))
        assert torch.equal(batch["others"], again["others"])
        assert "others" not in splits.train.batch(torch.tensor([3, 1]))
        assert "others" not in splits.valid.batch(torch.tensor([0]), torch.Generator())
        with refused("others more.csv expected captions as data, but of digits all are known"):
            captioned(others="more.csv")


class TestParts:
    """Which pictures are for what."""

    def test_a_tenth_each_is_held_out_by_picture(self, tmp_path: Path):
        one, same = (captioned(album(tmp_path)) for _ in range(2))
        assert [len(part) for part in one[:3]] == [16, 2, 2]
        assert [colours(part) for part in one[:3]] == [colours(part) for part in same[:3]]
        assert sorted(colour for part in one[:3] for colour in colours(part)) == list(range(20))
        assert one.describe == (
            f"the captions of {tmp_path}: 16 training, 2 validation and 2 test pictures (test is a tenth of train, "
            "valid is a tenth of train) with 40 captions of 19 words, on 30x40 pixels (height x width), in colour"
        )

    @pytest.mark.parametrize("name", ["captions.csv", "captions.txt"])
    def test_a_column_split(self, tmp_path: Path, name: str):
        album(tmp_path)
        parts = ["train"] * 10 + ["val"] * 4 + ["valid"] * 2 + ["test"] * 4
        rows = [(part, f"{n:03}.png", f"a {n}") for n, part in enumerate(parts)]
        (tmp_path / "captions.csv").unlink()
        splits = captioned(table(tmp_path, rows, name, "Split, IMAGE,caption"))
        assert [colours(part) for part in splits[:3]] == [[*range(10)], [*range(10, 16)], [*range(16, 20)]]
        assert "test pictures with" in splits.describe

    def test_where_no_test_is_told_it_is_half_of_validation(self, tmp_path: Path):
        album(tmp_path)
        rows = [(f"{n:03}.png", "a", "train" if n < 12 else "valid") for n in range(20)]
        splits = captioned(table(tmp_path, rows, header="image,caption,split"))
        assert [len(part) for part in splits[:3]] == [12, 4, 4] and colours(splits.train) == list(range(12))
        assert "(test is a half of valid)" in splits.describe

    def test_a_picture_in_two_parts_is_refused(self, tmp_path: Path):
        rows = [("000.png", "a", "train"), ("000.png", "b", "test")]
        with refused("the picture 000.png is in two parts, train and test"):
            captioned(table(album(tmp_path, 2), rows, header="image,caption,split"))

    def test_another_split_is_refused(self, tmp_path: Path):
        rows = [("000.png", "a", "train"), ("000.png", "b", "dev")]
        with refused(f"{tmp_path}/captions.csv, line 3: split must be train, valid or test, not 'dev'"):
            captioned(table(album(tmp_path, 2), rows, header="image,caption,split"))

    def test_a_part_without_pictures_is_refused(self, tmp_path: Path):
        rows = [("000.png", "a", "test"), ("001.png", "", "train")]
        album(tmp_path, 2)
        with refused(
            f"the captions of {tmp_path} have no training pictures; left out: 1 of the captions (without a word), "
            "1 of the pictures (without a caption)"
        ):
            captioned(table(tmp_path, rows, header="image,caption,split"))
        assert len(captions_to_test(tmp_path, Words(["a"]), (3, 8, 8)).test) == 1


class TestLeftOut:
    """What is not taken is said."""

    def test_captions_without_pictures_and_the_other_way(self, tmp_path: Path):
        album(tmp_path)
        paint(tmp_path / "more" / "alone.png")
        paint(tmp_path / ".hidden" / "x.png")
        (tmp_path / "notes.md").write_text("x")
        (tmp_path / "link.png").symlink_to("nowhere")
        os.mkfifo(tmp_path / "pipe.png")
        rows = [(f"{n:03}.png", "a dog") for n in range(20)] + [("nowhere.png", "b"), ("link.png", "c"), ("../x", "d")]
        rows += [("000.png", ""), ("000.png", " . "), ("001.png", "dog " * 500), ("001.png", "cat " * LONGEST)]
        splits = captioned(table(tmp_path, rows))
        assert splits.describe.endswith(
            "; left out: 3 of the captions (their picture is missing), 2 of the captions (without a word), 1 of the "
            "captions (over 100 words), 1 of the pictures (without a caption)"
        )
        longest = max(part.batch(torch.arange(len(part)))["caption"].shape[1] for part in splits[:3])
        assert longest <= LONGEST + 1 and sum(len(part) for part in splits[:3]) == 20

    def test_no_caption_of_any_picture(self, tmp_path: Path):
        album(tmp_path, 2)
        with refused(
            f"{tmp_path} has no caption of a picture in {tmp_path}; left out: 1 of the captions (their picture is "
            "missing), 2 of the pictures (without a caption)"
        ):
            captioned(table(tmp_path, [("x.png", "a")]))

    def test_the_end_of_a_path_names_a_picture_where_it_is_the_only_one(self, tmp_path: Path):
        for n, name in enumerate(("Images/a/0.png", "Images/b/1.png", "Images/c/0.png")):
            paint(tmp_path / name, n)
        rows = [("0.png", "which", "train"), ("1.png", "one", "train"), ("c/0.png", "two", "valid")]
        rows += [("./Images//a/0.png", "nought", "test")]
        splits = captioned(table(tmp_path, rows, header="image,caption,split"))
        assert [texts(part) for part in splits[:3]] == [[["one"]], [["two"]], [["nought"]]]
        assert [colours(part) for part in splits[:3]] == [[1], [2], [0]]
        assert "1 of the captions (their picture is missing)" in splits.describe

    def test_a_name_in_another_form_of_unicode(self, tmp_path: Path):
        album(tmp_path)
        paint(tmp_path / "cafe\u0301.png", 77)
        splits = captioned(table(tmp_path, [(f"{n:03}.png", "a") for n in range(20)] + [("caf\u00e9.png", "b")]))
        assert 77 in [colour for part in splits[:3] for colour in colours(part)]

    def test_values_of_more_than_eight_bits_have_one_scale(self, tmp_path: Path):
        album(tmp_path)
        Image.new("I;16", (40, 30), 4000).save(tmp_path / "000.png")
        assert {part.bits for part in captioned(tmp_path)[:3]} == {12}
        words = Words(["picture"])
        assert captions_to_test(tmp_path, words, (3, 30, 40)).test.bits == 16
        assert captions_to_test(tmp_path, words, (3, 30, 40), bits=14).test.bits == 14

    def test_all_pictures_that_fail_are_named(self, tmp_path: Path):
        album(tmp_path)
        for name in ("003.png", "017.png", "alone.png"):
            (tmp_path / name).write_text("no picture")
        with pytest.raises(ValueError, match=r"^2 of 20 pictures fail: .*003\.png cannot be read.*017\.png cannot"):
            captioned(tmp_path)


class TestForms:
    """The files that captions lie in."""

    def test_lines_without_a_header(self, tmp_path: Path):
        splits = captioned(album(tmp_path, header="", name="captions.txt"))
        assert [len(part) for part in splits[:3]] == [16, 2, 2] and "40 captions" in splits.describe

    def test_commas_and_lines_in_quotes(self, tmp_path: Path):
        (tmp_path / "a.csv").write_text('image,caption\n\n1.png,"a, b ""c""\nd"\n2.png,e\n')
        assert said(tmp_path / "a.csv") == [("1.png", 'a, b "c"\nd', ""), ("2.png", "e", "")]

    def test_lines_of_json(self, tmp_path: Path):
        album(tmp_path)
        rows = [{"image": f"{n:03}.png", "caption": "A dog", "split": "train", "tags": [1]} for n in range(18)]
        rows += [
            {"image": "018.png", "caption": "B", "split": "valid"},
            {"image": "019.png", "caption": "C", "split": "test"},
        ]
        (tmp_path / "captions.csv").unlink()
        (tmp_path / "captions.jsonl.xz").write_bytes(lzma.compress("\n".join(map(json.dumps, rows)).encode()))
        splits = captioned(tmp_path)
        assert [len(part) for part in splits[:3]] == [18, 1, 1] and texts(splits.test) == [["c"]]

    def test_one_file_and_pictures_elsewhere(self, tmp_path: Path):
        album(tmp_path / "photos")
        (tmp_path / "photos" / "captions.csv").rename(tmp_path / "mine.csv")
        splits = captioned(tmp_path / "mine.csv", tmp_path / "photos", canvas=20)
        assert splits.shape == (3, 20, 20) and len(splits.train) == 16
        with refused("canvas must be one pixel or more, not 0"):
            captioned(tmp_path / "mine.csv", tmp_path / "photos", canvas=0)

    @pytest.mark.parametrize("place", ["", "annotations"])
    def test_coco(self, tmp_path: Path, place: str):
        album(tmp_path / "photos")
        (tmp_path / "data" / place).mkdir(parents=True)
        for part, ids in (("train", range(12)), ("val", range(12, 20))):
            images = [{"id": n, "file_name": f"{n:03}.png"} for n in ids]
            captions = [{"image_id": n, "id": 3 * n, "caption": f"A {n}."} for n in ids for _ in range(2)]
            file = tmp_path / "data" / place / f"captions_{part}2017.json"
            file.write_text(json.dumps({"images": images, "annotations": captions}))
        splits = captioned(tmp_path / "data", tmp_path / "photos")
        assert [len(part) for part in splits[:3]] == [12, 4, 4] and colours(splits.train) == list(range(12))
        assert texts(splits.train)[3] == ["a 3", "a 3"]
        (file.parent / "captions_val2014.json").write_text("{}")
        with refused(f"{tmp_path}/data expected one file captions_val*.json, but has 2"):
            captioned(tmp_path / "data", tmp_path / "photos")

    def test_an_archive_is_split_by_order_of_name(self, tmp_path: Path):
        pack(album(tmp_path), "images.tar.xz", [f"{n:03}.png" for n in reversed(range(20))])
        splits = captioned(tmp_path)
        assert [colours(part) for part in splits[:3]] == [[*range(16)], [16, 17], [18, 19]]
        assert "(by order of name)" in splits.describe

    def test_the_test_part_of_others(self, tmp_path: Path):
        splits = captioned(album(tmp_path))
        found = captions_to_test(tmp_path, Words(["number", "picture"]), (1, 20, 25))
        assert [len(part) for part in found[:3]] == [0, 0, 2] and found.shape == (1, 20, 25)
        assert texts(found.test) == texts(splits.test)
        batch = found.test.batch(torch.arange(2))
        assert batch["picture"].shape == (2, 1, 20, 25)
        assert batch["caption"].tolist() == [[5, 4, UNKNOWN, END]] * 2


def pack(folder: Path, name: str, files: list[str]) -> Path:
    """An archive in a folder of files there, which are gone then."""
    with tarfile.open(folder / name, f"w:{name.rpartition('.')[2].removeprefix('tar')}") as tar:
        for each in files:
            tar.add(folder / each, arcname=f"images/{each}")
            (folder / each).unlink()
    return folder / name


COLUMNS = "expected image,caption, but got {} values; a caption that has a comma stands in quotes"
OBJECT = ", line 1: expected an object with the texts image and caption"
COCO = " expected COCO's captions: images with id and file_name, annotations with image_id and caption; but "
LIST = "TypeError list indices must be integers or slices, not str"
NUMBERS = b'{"images": [{"id": 1, "file_name": 2}], "annotations": [{"image_id": 1, "caption": "a"}]}'
DAMAGED = [
    ("a.csv", b"image,caption\n1.png,a dog, a cat\n", f", line 2: {COLUMNS.format(3)}"),
    ("a.csv", b'image,caption\n1.png,"a dog\n', ", line 2: unexpected end of data"),
    ("a.csv", b"image,caption\n1.png,caf\xe9\n", ", line 2: expected text in UTF-8, but got the byte 0xe9"),
    ("a.csv", b"", " is empty"),
    ("a.csv.xz", b"image,caption", " is not a whole xz file: Input format not supported by decoder"),
    ("a.txt", b"1.png\n", f", line 1: {COLUMNS.format(1)}"),
    ("a.jsonl", b'\n\n{"image"', ", line 3: expected JSON, but Expecting ':' delimiter: line 1 column 9 (char 8)"),
    ("a.jsonl", b'["1.png", "a"]', OBJECT),
    ("a.jsonl", b'{"image": 1, "caption": "a"}', OBJECT),
    (
        "a.jsonl",
        b'{"image": "1", "caption": "a", "split": ["x"]}',
        ", line 1: split must be train, valid or test, not ['x']",
    ),
    ("a.json", b"{}", f"{COCO}KeyError 'images'"),
    ("a.json", b"[1]", COCO + LIST),
    ("a.json", NUMBERS, " expected file_name and caption to be texts"),
    ("a.json", b'{"images"', ": expected JSON, but Expecting ':' delimiter: line 1 column 10 (char 9)"),
    ("a.json", b"\xff", ": expected JSON, but 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
]


class TestDamaged:
    """One sentence with the file, and the line where there is one."""

    @pytest.mark.parametrize(("name", "content", "sentence"), DAMAGED)
    def test_a_file_of_captions(self, tmp_path: Path, name: str, content: bytes, sentence: str):
        (tmp_path / name).write_bytes(content)
        with refused(f"{tmp_path}/{name}{sentence}"):
            said(tmp_path / name)

    def test_deep_json_and_surrogates(self, tmp_path: Path):
        (tmp_path / "a.jsonl").write_text("[" * 100_000)
        with pytest.raises(ValueError, match=r"a\.jsonl, line 1: expected JSON, but maximum recursion"):
            said(tmp_path / "a.jsonl")
        album(tmp_path)
        (tmp_path / "b.jsonl").write_text('{"image": "000.png", "caption": "a \\ud83d"}')
        with pytest.raises(ValueError, match=r"^a caption of 000\.png: expected text in UTF-8"):
            captioned(tmp_path / "b.jsonl")

    def test_another_ending(self, tmp_path: Path):
        (tmp_path / "a.xlsx").write_text("x")
        with refused(f"captions are read from files that end in .csv, .txt, .jsonl, .json, not from {tmp_path}/a.xlsx"):
            captioned(tmp_path / "a.xlsx")

    def test_nothing_there(self, tmp_path: Path):
        with pytest.raises(
            ValueError, match=r"nowhere does not exist; expected 'digits', or a folder of pictures with"
        ):
            captioned(tmp_path / "nowhere")
        with pytest.raises(
            ValueError, match=r"has no captions: none of captions\.jsonl, captions\.csv, captions\.txt, "
        ):
            captioned(tmp_path)
        album(tmp_path)
        with refused(f"pictures {tmp_path}/x do not exist; expected a folder or an archive of pictures"):
            captioned(tmp_path, tmp_path / "x")
        (tmp_path / "captions.txt").write_text("x")
        with refused(f"{tmp_path} expected one file of captions, but has captions.csv and captions.txt"):
            captioned(tmp_path)

    @pytest.mark.parametrize("keep", [0.03, 0.5, -1024, "no tar", "no end"])
    def test_an_archive_that_is_cut_or_none(self, tmp_path: Path, keep: Any):
        file = pack(album(tmp_path), "images.tar", [f"{n:03}.png" for n in range(20)])
        data, last = file.read_bytes(), len(stored(file)) * 1024
        cuts = {"no tar": b"no tar" * 1000, "no end": data[: last + 700] + b"x" * 2000}
        file.write_bytes(cuts[keep] if keep in cuts else data[: int(keep * len(data)) if keep > 0 else last])
        with pytest.raises(ValueError, match=rf"^{re.escape(str(file))} is not a whole tar archive: "):
            captioned(tmp_path)

    def test_nothing_of_an_archive_is_written_and_only_regular_files_count(self, tmp_path: Path):
        album(tmp_path / "in")
        outside = tmp_path / "outside.png"
        with tarfile.open(tmp_path / "in" / "images.tar", "w") as tar:
            for n in range(20):
                tar.add(tmp_path / "in" / f"{n:03}.png", arcname=f"{n:03}.png")
            tar.add(tmp_path / "in" / "000.png", arcname="../outside.png")
            for name, kind in (("link.png", tarfile.SYMTYPE), ("pipe.png", tarfile.FIFOTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "/etc/hostname"
                tar.addfile(member)
        rows = [(f"{n:03}.png", "a") for n in range(20)] + [("link.png", "b"), ("pipe.png", "b")]
        splits = captioned(table(tmp_path / "in", rows))
        assert not outside.exists() and "2 of the captions (their picture is missing)" in splits.describe


class TestReal:
    """The shared data sets."""

    def test_emoji(self, data_dir: Path):
        begin = time.process_time()
        splits = captioned(data_dir / "emoji_captions")
        assert [len(part) for part in splits[:3]] == [6136, 688, 748] and splits.shape == (3, 64, 64)
        assert "7,572 captions" in splits.describe and "left out" not in splits.describe
        assert ["keycap #"] in splits.train.captions[:9]
        picture = splits.train.batch(torch.arange(64))["picture"]
        assert float(picture[:, :, 0, 0].median()) == 1, "what is transparent lies on white"
        assert time.process_time() - begin < 40

    def test_photographs(self, data_dir: Path):
        splits = captioned(data_dir / "flickr8k_1000", canvas=32, least=5)
        assert [len(part) for part in splits[:3]] == [800, 100, 100] and splits.shape == (3, 32, 32)
        assert {len(each) for each in splits.test.captions} == {5} and "5,000 captions of 773 words" in splits.describe
