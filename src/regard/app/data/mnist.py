"""MNIST: handwritten digits from a folder of idx files, from the sample in this package, or from the Hugging Face hub.

LeCun, Cortes and Burges, The MNIST database of handwritten digits. The sample is itself a folder of idx files; its
README says where they come from.
"""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.app.data.files import contents
from regard.app.data.generators.scatter import Scattered
from regard.app.data.splits import Splits, count, hold_out
from regard.app.text.reading import printable

SAMPLE = Path(__file__).with_name("sample")
HUB = "ylecun/mnist"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
KINDS = {3: "images (N, Y, X)", 1: "labels (N)"}


class Digits(NamedTuple):
    """Images and labels of the two standard parts, as they are published."""

    images: UInt8[Tensor, "N Y X"]
    labels: UInt8[Tensor, " N"]
    test_images: UInt8[Tensor, "M Y X"]
    test_labels: UInt8[Tensor, " M"]


def digits(
    data: str | Path = "embedded", canvas: int = 60, clutter: int = 4, jitter: float = 0.0, bend: float = 0.0
) -> Splits:
    """MNIST digits scattered over canvases of `canvas` x `canvas` pixels with `clutter` pieces of other digits.

    `data` is "embedded" (10,000 training and 2,000 test images in this package), "hub" (all 70,000 from the Hugging
    Face hub, which needs the `hub` extra) or a folder of the four idx files, gzipped or not. A tenth of the training
    images is held out for validation. Training images are scattered afresh in every batch, and jittered and bent if
    that is asked for, the others always alike; `canvas=28, clutter=0` is plain MNIST. See `Scattered`.

    Raises ValueError where the data are missing, damaged or not MNIST, or do not fit on the canvas.

    >>> splits = digits(canvas=28, clutter=0)
    >>> splits.test.batch(torch.arange(5))["label"]
    tensor([7, 1, 0, 5, 9])
    """
    found, source = find(data)
    train, valid = hold_out(found.labels)
    parts = (
        Scattered(found.images[train], found.labels[train], canvas, clutter, jitter=jitter, bend=bend),
        Scattered(found.images[valid], found.labels[valid], canvas, clutter, seed=1),
        Scattered(found.test_images, found.test_labels, canvas, clutter, seed=2),
    )
    highest = int(max(found.labels.max(), found.test_labels.max()))
    classes = tuple(str(label) for label in range(highest + 1))
    return Splits(*parts, f"{source}: {count(*parts)}, {_layout(canvas, clutter)}", classes, (1, canvas, canvas))


def digits_to_test(data: str | Path, classes: Sequence[str], canvas: int = 60, clutter: int = 4) -> Splits:
    """The test part of `digits`, for what was trained to tell `classes`; the others are empty.

    A folder need not have the training files. Raises ValueError as `digits` does, and for a digit that is no class.

    >>> digits_to_test("embedded", tuple("0123456789")).describe
    'MNIST, the real digits inside regard: 2,000 test images, on 60x60 pixels with 4 pieces of clutter'
    """
    images, labels, source = find_test(data)
    if len(classes) <= labels.max():
        raise ValueError(f"the test labels of {source} go up to {labels.max()}, but there are {len(classes)} classes")
    test = Scattered(images, labels, canvas, clutter, seed=2)
    none = Scattered(images[:0], labels[:0], canvas, clutter=0)
    describe = f"{source}: {len(test):,} test images, {_layout(canvas, clutter)}"
    return Splits(none, none, test, describe, tuple(classes), (1, canvas, canvas))


def _layout(canvas: int, clutter: int) -> str:
    return f"on {canvas}x{canvas} pixels with {clutter} pieces of clutter"


def find(data: str | Path) -> tuple[Digits, str]:
    """The digits of "embedded", "hub" or a folder, and what they are called. Raises ValueError as `digits` does."""
    if data == "hub":
        return read_hub(), f"MNIST, {HUB} on the Hugging Face hub"
    folder, source = _place(data)
    return read_folder(folder), source


def find_test(data: str | Path) -> tuple[UInt8[Tensor, "M Y X"], UInt8[Tensor, " M"], str]:
    """The test images and labels of the same; a folder need not have the others."""
    if data == "hub":
        (_, _, images, labels), source = find(data)
        return images, labels, source
    folder, source = _place(data)
    return *read_part(folder, "t10k"), source


def _place(data: str | Path) -> tuple[Path, str]:
    """The folder of the files, and what it is called."""
    if data == "embedded":
        return SAMPLE, "MNIST, the real digits inside regard"
    return Path(data), f"MNIST, the idx files of {printable(data)}"


def read_folder(folder: Path) -> Digits:
    """The four idx files of `folder`, of `folder`/mnist or of `folder`/MNIST/raw.

    Raises ValueError where the folder or a file is missing, a file is damaged or of another kind, or the numbers of
    images and labels differ.

    >>> read_folder(SAMPLE).images.shape
    torch.Size([10000, 28, 28])
    """
    return Digits(*read_part(folder, "train"), *read_part(folder, "t10k"))


def read_part(folder: Path, part: str) -> tuple[UInt8[Tensor, "N Y X"], UInt8[Tensor, " N"]]:
    """The images and labels of a part, train or t10k; raises ValueError as `read_folder` does.

    >>> read_part(SAMPLE, "t10k")[1].shape
    torch.Size([2000])
    """
    if not folder.is_dir():
        raise ValueError(
            f"data folder {folder} does not exist; expected 'embedded', 'hub', a folder of the MNIST idx files "
            "or a folder of pictures, FOLDER/train/CLASS/*.png"
        )
    names = (name for name in NAMES if name.startswith(part))
    images, labels = (read_idx(_locate(folder, name), 3 if "images" in name else 1) for name in names)
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"the {part} files in {folder} hold {len(images)} images but {len(labels)} labels")
    return images, labels


def holds_digits(folder: Path) -> bool:
    """Whether a folder has any of the four files.

    >>> holds_digits(SAMPLE), holds_digits(SAMPLE.parent)
    (True, False)
    """
    return any(file.is_file() for name in NAMES for file in _candidates(folder, name))


def _candidates(folder: Path, name: str) -> list[Path]:
    places = (folder, folder / "mnist", folder / "MNIST" / "raw")
    return [place / file for place in places for file in (name, f"{name}.gz")]


def _locate(folder: Path, name: str) -> Path:
    for file in _candidates(folder, name):
        if file.is_file():
            return file
    raise ValueError(
        f"MNIST file {name} or {name}.gz is not in {folder}, nor in its subfolders mnist and MNIST/raw; "
        f"the four files looked for are {', '.join(NAMES)}; pictures would be in {folder}/train/CLASS"
    )


def read_idx(file: Path, rank: int) -> UInt8[Tensor, "..."]:
    """The bytes of an idx file as a tensor of `rank` dimensions: a magic number, the sizes, the values.

    The magic number is 0x0800 + rank for unsigned bytes; it and each size are four bytes, the highest first. Files
    that end in .gz are decompressed. Raises ValueError for a file that is damaged, truncated or of another kind.

    >>> read_idx(SAMPLE / "t10k-labels-idx1-ubyte.gz", rank=1)[:5]
    tensor([7, 1, 0, 5, 9], dtype=torch.uint8)
    """
    data = contents(file)
    if data[:4] != bytes((0, 0, 8, rank)):
        raise ValueError(
            f"{file} is not an MNIST file of {KINDS[rank]}: it starts with 0x{data[:4].hex()}, not 0x{0x800 + rank:08x}"
        )
    sizes = [int.from_bytes(data[4 * i + 4 : 4 * i + 8], "big") for i in range(rank)]
    start = 4 + 4 * rank
    if len(data) - start != math.prod(sizes):
        raise ValueError(f"{file} is truncated or damaged: {len(data)} bytes, but its header says {sizes}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)[start:].reshape(sizes)


def read_hub() -> Digits:
    """All 70,000 images from the data set ylecun/mnist, downloaded once and kept in the hub's own cache.

    Raises ValueError where the `hub` extra is not installed, or the data are neither reachable nor in the cache.
    """
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ValueError("data 'hub' needs the extra hub: pip install 'regard[hub]'") from error
    parts: list[Tensor] = []
    for part in ("train", "test"):
        try:
            file = hf_hub_download(HUB, f"mnist/{part}-00000-of-00001.parquet", repo_type="dataset")
        except Exception as error:  # one of many, from several libraries
            reason = type(error).__name__
            raise ValueError(f"data 'hub' could not fetch {HUB} ({reason}); is this machine online?") from error
        rows = pyarrow.parquet.read_table(file)
        parts += [_decode(rows["image"].to_pylist()), torch.tensor(rows["label"].to_pylist(), dtype=torch.uint8)]
    return Digits(*parts)


def _decode(pictures: list[dict[str, bytes]]) -> UInt8[Tensor, "N Y X"]:
    import numpy as np
    from PIL import Image

    return torch.from_numpy(
        np.stack([np.asarray(Image.open(BytesIO(picture["bytes"]), formats=("PNG",))) for picture in pictures])
    )
