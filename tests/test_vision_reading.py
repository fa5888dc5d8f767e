"""Pictures from outside: formats, modes, values of more than eight bits, orientation, and what is refused."""

import re
import shutil
import struct
import subprocess
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regard.app.vision import reading
from regard.app.vision.reading import ENDINGS, Facts, facts, read

NOISE = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)


def png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a value (Y, X, C), of which pillow writes grey alone: 2 is RGB, 4 grey with alpha, 6 RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", *values.shape[1::-1], 16, colour, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + zlib.compress(rows), b"IEND")
    parts = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("values", "bits", "expected"),
    [
        (np.array([[0, 25600, 65535]], np.uint16), 16, [0, 100, 255]),
        (np.array([[0, 2048, 4095]], np.uint16), 12, [0, 128, 255]),
        (np.array([[0, 100, 255]], np.uint16), 8, [0, 100, 255]),
        (np.array([[0, 1, 1]], np.uint16), 1, [0, 255, 255]),
        (np.array([[0, 0, 0]], np.uint16), 1, [0, 0, 0]),
        (np.array([[-5, 2**19, 2**20 - 1]], np.int32), 20, [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), 1, [0, 128, 255]),
        (np.array([[-1.0, 100.0, 255.4]], np.float32), 8, [0, 100, 255]),
        (np.array([[np.nan, 0.5, np.inf]], np.float32), 1, [0, 128, 255]),
    ],
)
def test_grey_of_more_than_eight_bits_is_scaled_by_those_that_are_used(
    values: np.ndarray, bits: int, expected, tmp_path
):
    file = tmp_path / ("deep.tif" if values.dtype.kind == "f" or values.itemsize == 4 else "deep.png")
    Image.fromarray(values).save(file)
    assert facts(file) == Facts(True, 1, 3, bits)
    assert read(file, (1, 1, 3), bits).flatten().tolist() == expected


@pytest.mark.parametrize(("colour", "channels", "grey"), [(2, 3, False), (6, 4, False), (4, 2, True)])
def test_colours_of_16_bits_are_scaled_as_well(colour: int, channels: int, grey: bool, tmp_path: Path):
    values = np.full((1, 3, channels), 65535)
    values[..., : channels - (colour > 2)] = np.array([0, 2048, 4095])[:, None]
    (tmp_path / "deep.png").write_bytes(png(values, colour))
    assert facts(tmp_path / "deep.png") == Facts(grey, 1, 3, 12)
    found = read(tmp_path / "deep.png", (3, 1, 3), 12)
    assert (found - torch.tensor([0, 128, 240]).byte()).abs().max() <= 1, "of which the higher eight bits are known"
    assert read(tmp_path / "deep.png", (3, 1, 3), 16).flatten(1)[0].tolist() == [0, 8, 15]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 70, [70, 70, 70]),
        ("LA", (70, 255), [70, 70, 70]),
        ("LA", (70, 0), [255, 255, 255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (0, 0, 0, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 51), [204, 204, 204]),
        ("CMYK", (0, 255, 255, 0), [255, 0, 0]),
        ("P", 0, [10, 20, 30]),
        ("YCbCr", (76, 85, 255), [254, 0, 0]),
        ("LAB", (255, 128, 128), [255, 255, 255]),
    ],
)
def test_every_mode_becomes_red_green_and_blue(mode: str, colour: Any, expected: list[int], tmp_path: Path):
    image = Image.new(mode, (5, 4), colour)
    if mode == "P":
        image.putpalette([10, 20, 30])
    file = tmp_path / ("picture.tif" if mode in ("CMYK", "YCbCr", "LAB") else "picture.png")
    image.save(file)
    found = read(file, (3, 4, 5))[:, 2, 2]
    assert (found.int() - torch.tensor(expected)).abs().max() <= 1
    assert int(read(file, (1, 4, 5))[0, 2, 2]) == Image.new("RGB", (1, 1), tuple(found.tolist())).convert("L").getpixel(
        (0, 0)
    )
    assert facts(file).grey == (mode in ("1", "L", "LA"))


def test_a_transparent_colour_of_a_palette_lies_on_white(tmp_path: Path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    image.save(tmp_path / "a.gif", transparency=0)
    for name in ("a.png", "a.gif"):
        assert read(tmp_path / name, (3, 1, 2))[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first_is_read(ending: str, tmp_path: Path):
    file = tmp_path / f"frames.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    frames = [Image.new("L", (6, 5), value).convert("RGB") for value in (200, 30)]
    frames[0].save(file, save_all=True, append_images=frames[1:], **options)
    with Image.open(file) as image:
        assert image.n_frames == 2
    assert (read(file, (3, 5, 6)) == 200).all()


ORIENTED = {  # how the values 0 1 / 2 3 of a file are seen
    1: [0, 1, 2, 3], 2: [1, 0, 3, 2], 3: [3, 2, 1, 0], 4: [2, 3, 0, 1],
    5: [0, 2, 1, 3], 6: [2, 0, 3, 1], 7: [3, 1, 2, 0], 8: [1, 3, 0, 2],
}  # fmt: skip


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "mpo"])
def test_every_format_is_turned_upright(ending: str, orientation: int, tmp_path: Path):
    quarters = np.array([[0, 80], [160, 240]], np.uint8).repeat(16, 0).repeat(24, 1)  # 32 x 48
    exif, file = Image.Exif(), tmp_path / f"picture.{'jpg' if ending == 'mpo' else ending}"
    exif[reading.ORIENTATION] = orientation
    options: dict[str, Any] = {"lossless": True} if ending == "webp" else {"quality": 95}
    if ending == "mpo":
        options |= {"format": "MPO", "save_all": True, "append_images": [Image.new("L", (48, 32))]}
    Image.fromarray(quarters).convert("RGB").save(file, exif=exif, **options)
    height, width = (32, 48) if orientation < 5 else (48, 32)
    assert facts(file)[1:3] == (height, width)
    seen = read(file, (1, height, width))[0, :: height // 2, :: width // 2].flatten()
    assert (seen.int() - 80 * torch.tensor(ORIENTED[orientation])).abs().max() <= 6


@pytest.mark.parametrize("size", [(17, 16), (16, 17), (9, 100), (1, 1), (640, 481)])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_sizes_are_those_of_the_file(size: tuple[int, int], ending: str, tmp_path: Path):
    Image.new("L", size).save(tmp_path / f"a.{ending}")
    assert facts(tmp_path / f"a.{ending}") == Facts(True, size[1], size[0], 0)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending not in (".jpeg", ".tiff")])
def test_what_is_truncated_is_found(ending: str, share: float, tmp_path: Path):
    file = tmp_path / f"cut{ending}"
    Image.fromarray(NOISE).save(file)
    whole = file.read_bytes()
    assert facts(file).height == 90
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=re.escape(f"picture {file} cannot be read: ")):
        facts(file)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"\xff\xd8\xff\xe0", b"II*\0"]
)
def test_what_is_no_picture_is_named(data: bytes, tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(data)
    for of in (facts, lambda file: read(file, (1, 2, 2))):
        with pytest.raises(ValueError, match=f"^{re.escape(f'picture {file} cannot be read: ')}[^\n]+$"):
            of(file)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def test_no_other_decoder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda *_: pytest.fail("looks for Ghostscript"))
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("starts Ghostscript"))
    (tmp_path / "a.png").write_bytes(EPS)
    Image.new("L", (5, 4)).save(tmp_path / "b.ppm")
    (tmp_path / "b.ppm").rename(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(ValueError, match=r"cannot be read: it is none of PNG, JPEG, WEBP, TIFF, BMP, GIF$"):
            facts(tmp_path / name)


def test_the_format_is_that_of_the_file_and_not_of_its_name(tmp_path: Path):
    Image.fromarray(NOISE).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert facts(tmp_path / "a.png") == Facts(False, 90, 90, 0)


def test_a_picture_that_is_too_large_to_decode_is_named(tmp_path: Path):
    file = tmp_path / "bomb.png"
    whole = bytearray(png(np.zeros((1, 1, 3)), 2))
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    file.write_bytes(whole)
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read: Image size \(3600000000 pixels\) exceeds"):
        facts(file)


def test_damaged_exif_and_odd_palettes_cost_no_warning(tmp_path: Path):
    Image.new("P", (4, 3)).save(tmp_path / "a.png", transparency=bytes([10, 200]))
    Image.fromarray(NOISE).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path / "a.png", (3, 3, 4)).shape == (3, 3, 4)
        assert read(tmp_path / "b.jpg", (3, 90, 90)).float().mean() > 100


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (3, 2)])
def test_any_proportions_fit(size: tuple[int, int], tmp_path: Path):
    Image.new("L", size, 255).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", (1, 7, 9))[0] > 0
    assert found.any() and found.any(0).all() == (size[0] >= size[1] * 9 / 7) and found[3, 4]
