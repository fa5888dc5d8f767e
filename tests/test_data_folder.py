import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regard.app.data import Split, folder, load, pictures


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


def test_endings_are_read_in_any_case_and_nothing_else_is(tmp_path: Path):
    fill(tmp_path)
    for name in ("a.PNG", "b.JPG", "c.jpeg", "d.Jpeg"):
        paint(tmp_path / "test" / "ant" / name)
    for name in ("e.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / "test" / "ant" / name).write_text("no picture")
    (tmp_path / "train" / ".cache").mkdir()
    assert names(pictures(tmp_path).test) == {"ant/a.PNG", "ant/b.JPG", "ant/c.jpeg", "ant/d.Jpeg"}


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_one_channel_only_if_every_picture_is_grey(tmp_path: Path, mode: str, channels: int):
    fill(tmp_path)
    Image.new("L", (40, 30), 255).convert(mode).save(tmp_path / "train" / "bee" / "last.png")
    splits = pictures(tmp_path)
    assert splits.shape == (channels, 30, 40)
    for split in splits[:3]:
        assert bytes_of(split).shape == (len(split), channels, 30, 40)
    last = folder.decode(tmp_path / "train" / "bee" / "last.png", (channels, 30, 40))
    assert (last == 255).all()


def test_colours_are_red_green_blue(tmp_path: Path):
    fill(tmp_path)
    paint(tmp_path / "test" / "ant" / "colour.png", (250, 100, 3), mode="RGB")
    splits = pictures(tmp_path)
    assert bytes_of(splits.test)[0, :, 7, 9].tolist() == [250, 100, 3]
    grey = bytes_of(splits.train)
    assert torch.equal(grey[:, 0], grey[:, 1])


def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path: Path):
    fill(tmp_path)
    ramp = np.array([[0, 256 * 100, 65535]], dtype=np.uint16).repeat(3, 0)
    (tmp_path / "test" / "ant").mkdir(parents=True)
    Image.fromarray(ramp).save(tmp_path / "test" / "ant" / "deep.png")
    splits = pictures(tmp_path, canvas=3)
    assert splits.shape[0] == 1
    assert bytes_of(splits.test)[0, 0].tolist() == [[0, 100, 255]] * 3


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
    sideways[folder.ORIENTATION] = 6
    for name in ("ant", "bee"):
        for i in range(3):
            paint(tmp_path / "train" / name / f"{i}.jpg", size=(40, 30), exif=sideways)
    splits = pictures(tmp_path)
    assert splits.shape == (1, 40, 30)
    assert (bytes_of(splits.train) > 250).all()


def test_a_small_split_is_decoded_once_and_a_large_one_whenever_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path)
    decoded, decode = [], folder.decode
    monkeypatch.setattr(folder, "decode", lambda file, shape: decoded.append(file) or decode(file, shape))
    small = pictures(tmp_path).train
    monkeypatch.setattr(folder, "CACHE", 32 * 30 * 40 - 1)
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
    message = f"folder {tmp_path}/train does not exist; pictures are read from FOLDER/train/CLASS/*.png, jpg or jpeg"
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
    message = f"class folder {tmp_path}/train/cat has no pictures that end in .png, .jpg or .jpeg"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pictures(tmp_path)


def test_a_class_of_the_test_alone_is_named(tmp_path: Path):
    fill(fill(tmp_path), "test", classes=("ant", "cat"))
    message = f"class cat in {tmp_path}/test is not among those of train: ant, bee"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pictures(tmp_path)


def test_an_empty_test_folder_is_named(tmp_path: Path):
    (fill(tmp_path) / "test" / "ant").mkdir(parents=True)
    message = f"{tmp_path}/test has no class folders with pictures that end in .png, .jpg or .jpeg"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pictures(tmp_path)


def test_too_few_pictures_are_refused(tmp_path: Path):
    message = f"{fill(tmp_path, count=1)} has too few pictures: none is left to train on after a tenth "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        pictures(tmp_path)


def test_a_file_that_is_no_picture_is_named_at_once(tmp_path: Path):
    file = fill(tmp_path) / "train" / "bee" / "broken.png"
    file.write_text("no picture")
    with pytest.raises(ValueError, match=re.escape(f"picture {file} cannot be read: ")):
        pictures(tmp_path)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_truncated_picture_is_named_when_it_is_asked_for(tmp_path: Path, ending: str):
    file = fill(tmp_path) / "test" / "bee" / f"cut.{ending}"
    file.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    test = pictures(tmp_path).test
    with pytest.raises(ValueError, match=re.escape(f"picture {file} cannot be read: ")):
        test.batch(torch.tensor([0]))


def test_an_impossible_canvas_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^canvas must be one pixel or more, not 0$"):
        pictures(fill(tmp_path), canvas=0)


def test_one_picture_is_read_as_those_of_a_split_are(tmp_path: Path):
    fill(tmp_path, size=(40, 20))
    splits = pictures(tmp_path, canvas=30)
    one = folder.read_picture(splits.train.files[3], splits.shape)
    assert torch.equal(one, splits.train.batch(torch.tensor([3]))["image"][0]) and one.shape == (1, 30, 30)
