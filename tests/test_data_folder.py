import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regard.app.data import Split, images_to_test, load, pictures, pictures_to_test, pixels
from regard.app.data.folder import read_picture
from regard.app.vision import reading


def paint(file: Path, value: Any = 255, size=(40, 30), mode="L", **options) -> None:
    """A picture of one colour, `size` as (width, height)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(file, **options)


def fill(root: Path, part: str = "train", classes=("ant", "bee"), count: int = 20, **options) -> Path:
    for name in classes:
        for i in range(count):
            paint(root / part / name / f"{i:03}.png", value=i + 1, **options)
    return root


def bytes_of(split: Split) -> torch.Tensor:
    return (split.batch(torch.arange(len(split)))["image"] * 255).round().byte()


def names(split: Any) -> set[str]:
    return {f"{file.parent.name}/{file.name}" for file in split.files}


def test_folders_become_classes_in_the_order_of_their_names(tmp_path: Path):
    fill(tmp_path, classes=("bee", "ant"))
    fill(tmp_path, "test", count=3)
    splits = load(tmp_path)
    assert splits.classes == ("ant", "bee")
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (36, 4, 6)
    assert splits.describe == (
        f"the pictures of {tmp_path}: 36 training, 4 validation and 6 test images; "
        "2 classes on 30x40 pixels (height x width), grey"
    )
    batch = splits.test.batch(torch.tensor([4, 0]))
    assert batch["label"].tolist() == [1, 0]
    assert batch["label"].dtype == torch.int64
    assert batch["image"].shape == (2, *splits.shape) == (2, 1, 30, 40)
    assert batch["image"][:, 0, 0, 0].tolist() == pytest.approx([2 / 255, 1 / 255])
    assert not names(splits.train) & names(splits.valid)
    assert len(names(splits.train) | names(splits.valid)) == 40


def test_without_a_test_folder_a_seeded_tenth_is_held_out_and_said(tmp_path: Path):
    fill(tmp_path)
    one, same, other = pictures(tmp_path), pictures(tmp_path), pictures(tmp_path, seed=1)
    assert (len(one.train), len(one.valid), len(one.test)) == (32, 4, 4)
    assert "(there is no folder test: a tenth is held out for it with seed 0)" in one.describe
    assert names(one.test) == names(same.test) != names(other.test)
    assert not names(one.train) & names(one.test)
    assert sorted(one.test.batch(torch.arange(4))["label"].tolist()) == [0, 0, 1, 1]


ALL = ".png, .jpg, .jpeg, .webp, .tif, .tiff, .bmp or .gif"
ENDINGS = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "gif")


def test_every_ending_is_read_in_any_case_and_in_folders_below(tmp_path: Path):
    fill(tmp_path)
    for n, ending in enumerate(ENDINGS):
        paint(tmp_path / "test" / "ant" / f"{n}.{ending}", value=200)
        paint(tmp_path / "test" / "bee" / "2019" / "may" / f"{n}.{ending.upper()}", value=200)
    splits = pictures(tmp_path)
    assert names(splits.test) == {f"ant/{n}.{ending}" for n, ending in enumerate(ENDINGS)} | {
        f"may/{n}.{ending.upper()}" for n, ending in enumerate(ENDINGS)
    }
    assert splits.test.labels.tolist() == 8 * [0] + 8 * [1]
    assert ((bytes_of(splits.test).int() - 200).abs() <= 2).all() and "left out" not in splits.describe


def test_what_is_left_out_is_said_but_for_hidden_files(tmp_path: Path):
    fill(tmp_path)
    ant = tmp_path / "test" / "ant"
    paint(ant / "a.png")
    for name in ("e.txt", "f.TXT", ".hidden.png", ".DS_Store", "Thumbs.db", "README"):
        (ant / name).write_text("no picture")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "ant" / "more").symlink_to(ant)
    os.mkfifo(ant / "pipe.png")
    for loose in ("train/loose.png", "labels.csv", "val/ant/b.png"):
        paint(tmp_path / loose) if loose.endswith("png") else (tmp_path / loose).write_text("x")
    splits = pictures(tmp_path)
    assert names(splits.test) == {"ant/a.png"}
    remark = splits.describe.partition("; left out: ")[2]
    assert sorted(remark.split(", ")) == [
        "1 of the files (.db)",
        "1 of the files (.png)",
        "1 of the files (links to folders)",
        "1 of the files (no ending)",
        "1 of the folders (beside train and test)",
        "2 of the files (.txt)",
        "2 of the files (outside the class folders)",
    ]


def test_many_kinds_of_files_are_summed_up(tmp_path: Path):
    for n in range(30):
        (fill(tmp_path, count=12) / "train" / "ant" / f"x.{n:02}").write_text("x")
    assert pictures(tmp_path).describe.endswith(", 1 of the files (.09), 20 of the files (other kinds)")


def test_classes_whose_names_look_the_same_are_one(tmp_path: Path):
    fill(tmp_path, classes=("caf\u00e9", "bee"), count=10)
    fill(tmp_path, classes=("cafe\u0301",), count=10)
    fill(tmp_path, "test", classes=("cafe\u0301 ", "bee"), count=2)
    splits = pictures(tmp_path)
    assert splits.classes == ("bee", "caf\u00e9")
    assert (len(splits.train) + len(splits.valid), len(splits.test)) == (30, 4)


def test_a_class_whose_name_is_no_utf_8_is_named(tmp_path: Path):
    os.mkdir(os.fsencode(fill(tmp_path) / "train") + b"/caf\xe9")
    sentence = f"the name of the class folder {tmp_path}/train/caf\\udce9 is not UTF-8"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        pictures(tmp_path)


def test_a_picture_whose_name_is_no_utf_8_is_read_and_can_be_named(tmp_path: Path):
    file = Path(os.fsdecode(os.fsencode(fill(tmp_path) / "train" / "ant") + b"/\xe9.png"))
    paint(file)
    assert file in pictures_to_test(tmp_path / "train", ("ant", "bee"), (1, 30, 40)).test.files
    file.write_text("no picture")
    with pytest.raises(ValueError, match=r"udce9\.png cannot be read") as caught:
        pictures(tmp_path)
    str(caught.value).encode()


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_one_channel_only_if_every_picture_is_grey(tmp_path: Path, mode: str, channels: int):
    fill(tmp_path)
    Image.new("L", (40, 30), 255).convert(mode).save(tmp_path / "train" / "bee" / "last.png")
    splits = pictures(tmp_path)
    assert splits.shape == (channels, 30, 40)
    for split in splits[:3]:
        assert bytes_of(split).shape == (len(split), channels, 30, 40)
    last = reading.read(tmp_path / "train" / "bee" / "last.png", (channels, 30, 40))
    assert (last == 255).all()


def test_colours_are_red_green_blue(tmp_path: Path):
    fill(tmp_path)
    paint(tmp_path / "test" / "ant" / "colour.png", (250, 100, 3), mode="RGB")
    splits = pictures(tmp_path)
    assert bytes_of(splits.test)[0, :, 7, 9].tolist() == [250, 100, 3]
    grey = bytes_of(splits.train)
    assert torch.equal(grey[:, 0], grey[:, 1])


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path):
    fill(tmp_path)
    file = tmp_path / "test" / "ant" / "palette.png"
    file.parent.mkdir(parents=True)
    Image.new("P", (40, 30), 0).save(file, transparency=bytes([10, 200]))
    assert bytes_of(pictures(tmp_path).test).shape == (1, 3, 30, 40)


def test_pictures_are_fitted_in_proportion_and_centred_on_the_median_size(tmp_path: Path):
    fill(tmp_path)
    paint(tmp_path / "test" / "ant" / "0-wide.png", size=(80, 20))  # halved: 40x10
    paint(tmp_path / "test" / "ant" / "1-small.png", size=(10, 10))  # three times: 30x30
    splits = pictures(tmp_path)
    assert splits.shape == (1, 30, 40)
    wide, small = bytes_of(splits.test)[:, 0]
    assert (wide[10:20] == 255).all()
    assert (wide[:10] == 0).all()
    assert (wide[20:] == 0).all()
    assert (small[:, 5:35] == 255).all()
    assert (small[:, :5] == 0).all()
    assert (small[:, 35:] == 0).all()


def test_a_canvas_chosen_from_large_pictures_has_at_most_512_pixels_on_a_side(tmp_path: Path):
    fill(tmp_path, size=(1024, 400), count=3)
    assert pictures(tmp_path).shape == (1, 200, 512)
    assert pictures(tmp_path, canvas=600).shape == (1, 600, 600)


def test_photographs_are_turned_upright(tmp_path: Path):
    sideways = Image.Exif()
    sideways[reading.ORIENTATION] = 6
    for name in ("ant", "bee"):
        for i in range(3):
            paint(tmp_path / "train" / name / f"{i}.jpg", size=(40, 30), exif=sideways)
    splits = pictures(tmp_path)
    assert splits.shape == (1, 40, 30)
    assert (bytes_of(splits.train) > 250).all()


def test_a_small_split_is_decoded_once_and_a_large_one_whenever_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path)
    decoded, read = [], reading.read
    monkeypatch.setattr(reading, "read", lambda file, *form: decoded.append(file) or read(file, *form))
    small = pictures(tmp_path).train
    monkeypatch.setattr(pixels, "CACHE", 32 * 30 * 40 - 1)
    large = pictures(tmp_path).train
    assert decoded == []
    indices = torch.tensor([5, 2, 5, 9])
    first = small.batch(indices)
    assert len(decoded) == 3
    assert torch.equal(small.batch(indices)["image"], first["image"])
    assert len(decoded) == 3
    for total in (7, 11):
        assert torch.equal(large.batch(indices)["image"], first["image"])
        assert len(decoded) == total


def test_no_folder_train_is_named(tmp_path: Path):
    message = f"folder {tmp_path}/train does not exist; pictures are read from FOLDER/train/CLASS/*.png"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pictures(tmp_path)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, count: int):
    (tmp_path / "train").mkdir()
    fill(tmp_path, classes=("ant",)[:count])
    message = f"{tmp_path}/train must have a folder for each of two classes or more; it has {count}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load(tmp_path)


def test_a_class_without_pictures_is_named(tmp_path: Path):
    (fill(tmp_path) / "train" / "cat").mkdir()
    message = f"class folder {tmp_path}/train/cat has no pictures that end in {ALL}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pictures(tmp_path)


def test_a_class_of_the_test_alone_is_named(tmp_path: Path):
    fill(fill(tmp_path), "test", classes=("ant", "cat"))
    message = f"class cat in {tmp_path}/test is not among those of train: ant, bee"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pictures(tmp_path)


def test_an_empty_test_folder_is_named(tmp_path: Path):
    (fill(tmp_path) / "test" / "ant").mkdir(parents=True)
    message = f"{tmp_path}/test has no class folders with pictures that end in {ALL}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pictures(tmp_path)


def test_too_few_pictures_are_refused(tmp_path: Path):
    message = f"{fill(tmp_path, count=1)} has too few pictures: none is left to train on after a tenth "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        pictures(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_all_pictures_that_fail_are_named_at_once(part: str, tmp_path: Path):
    fill(fill(tmp_path), "test", count=2)
    file = tmp_path / part / "bee" / "broken.png"
    file.write_text("no picture")
    cut = tmp_path / part / "bee" / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    (tmp_path / part / "bee" / "link.png").symlink_to("nowhere")
    sentence = (
        f"3 of 47 pictures fail: picture {file} cannot be read: it is none of PNG, JPEG, WEBP, TIFF, BMP, GIF; picture "
        f"{cut} cannot be read: image file is truncated (7 bytes not processed); picture {file.with_name('link.png')} "
        "cannot be read: No such file or directory"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        pictures(tmp_path)


def test_of_many_pictures_that_fail_ten_are_named(tmp_path: Path):
    fill(tmp_path)
    for n in range(13):
        (tmp_path / "train" / "ant" / f"broken{n:02}.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"^13 of 53 pictures fail: .*broken09\.png [^;]*; and 3 more$"):
        pictures(tmp_path)


def test_values_of_more_than_eight_bits_have_one_scale_in_a_data_set(tmp_path: Path):
    fill(tmp_path)
    for name, value in (("dark", 1000), ("light", 4000)):
        paint(tmp_path / "test" / "ant" / f"{name}.png", value=value, mode="I;16")
    splits = pictures(tmp_path)
    assert splits.test.bits == 12 and bytes_of(splits.test)[:, 0, 0, 0].tolist() == [62, 249]
    assert bytes_of(splits.train).max() == 20, "those of eight bits have their own"
    assert pictures(fill(tmp_path / "other")).test.bits == 16


class TestOthers:
    """Pictures to test what was trained on others."""

    def test_a_folder_test_alone_is_enough(self, tmp_path: Path):
        fill(tmp_path, "test", classes=("bee",), count=3)
        splits = pictures_to_test(tmp_path, ("ant", "bee"), (3, 20, 20))
        assert splits.classes == ("ant", "bee") and splits.shape == (3, 20, 20)
        assert splits.test.batch(torch.arange(3))["label"].tolist() == [1, 1, 1]
        assert bytes_of(splits.test).shape == (3, 3, 20, 20) and (len(splits.train), len(splits.valid)) == (0, 0)
        form = "3 test images; 2 classes on 20x20 pixels (height x width), in colour"
        assert splits.describe == f"the pictures of {tmp_path}/test: {form}"

    def test_class_folders_alone_are_enough(self, tmp_path: Path):
        fill(tmp_path, ".", count=3)
        (tmp_path / "notes.txt").write_text("x")
        splits = images_to_test(tmp_path, ("ant", "bee", "cow"), (1, 30, 40))
        assert splits.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert splits.describe.endswith("; left out: 1 of the files (outside the class folders)")

    @pytest.mark.parametrize("parts", [["train"], ["train", "test"]])
    def test_of_the_same_folder_it_is_the_same_test(self, parts: list[str], tmp_path: Path):
        for part in parts:
            fill(tmp_path, part)
        paint(tmp_path / "train" / "ant" / "deep.png", value=4000, mode="I;16")
        whole = pictures(tmp_path)
        alone = images_to_test(tmp_path, whole.classes, whole.shape, bits=whole.test.bits)
        assert alone.test.files == whole.test.files and torch.equal(bytes_of(alone.test), bytes_of(whole.test))

    def test_the_bits_of_the_run_count_if_they_are_known(self, tmp_path: Path):
        paint(tmp_path / "test" / "ant" / "dark.png", value=1000, mode="I;16")
        found = [pictures_to_test(tmp_path, ("ant",), (1, 1, 1), bits).test for bits in (None, 12)]
        assert [int(bytes_of(each)) for each in found] == [249, 62]

    def test_a_class_that_was_not_learned_is_named(self, tmp_path: Path):
        fill(tmp_path, "test", classes=("cow",))
        message = f"class cow in {tmp_path}/test is not among those of train: ant, bee"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            images_to_test(tmp_path, ("ant", "bee"), (1, 30, 40))

    def test_a_damaged_picture_is_named(self, tmp_path: Path):
        (fill(tmp_path, "test", count=1) / "test" / "ant" / "x.png").write_text("no picture")
        with pytest.raises(ValueError, match=r"^1 of 3 pictures fail: picture .*x\.png cannot be read: it is none of"):
            images_to_test(tmp_path, ("ant", "bee"), (1, 30, 40))


def test_an_impossible_canvas_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^canvas must be one pixel or more, not 0$"):
        pictures(fill(tmp_path), canvas=0)


def test_one_picture_is_read_as_those_of_a_split_are(tmp_path: Path):
    fill(tmp_path, size=(40, 20))
    splits = pictures(tmp_path, canvas=30)
    one = read_picture(splits.train.files[3], splits.shape)
    assert torch.equal(one, splits.train.batch(torch.tensor([3]))["image"][0]) and one.shape == (1, 30, 30)
