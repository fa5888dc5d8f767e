"""Your own pictures: a folder with a folder for each class, the ImageFolder convention."""

from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from regard.app.data.splits import Splits, count, hold_out

ENDINGS = (".png", ".jpg", ".jpeg")
GREY = ("1", "L", "LA", "I", "I;16")  # what pillow calls the modes of grey files
LARGEST = 512  # pixels on the longer side of a canvas that is chosen from the pictures
CACHE = 256 * 2**20  # bytes up to which a split keeps its decoded pictures
CHANNELS = {1: "grey", 3: "in colour"}
ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side


class Listing(NamedTuple):
    """Files and the number of each one's class."""

    files: list[Path]
    labels: Int[Tensor, " N"]

    def take(self, indices: Int[Tensor, " M"]) -> "Listing":
        """The files at `indices`."""
        return Listing([self.files[i] for i in indices.tolist()], self.labels[indices])


class Pictures:
    """Pictures of any size, each centred on a canvas of `shape` (C, Y, X), as a split.

    A picture is scaled, larger or smaller, until it just fits, in its own proportions; what is left of the canvas is
    black. Transparency is dropped, and a photograph is turned upright as its camera says. Pictures are decoded when a
    batch asks for them, and kept only if those of the whole split take at most 256 MiB, one byte a value.
    """

    def __init__(self, listing: Listing, shape: tuple[int, int, int]):
        self.files, self.labels, self.shape = listing.files, listing.labels, shape
        small = len(self.files) * shape[0] * shape[1] * shape[2] <= CACHE
        self.cache = torch.empty(len(self.files), *shape, dtype=torch.uint8) if small else None
        self.known = torch.zeros(len(self.files), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The pictures at `indices`: `image` (B, C, Y, X) in [0, 1] and `label` (B,). Nothing in them is random.

        Raises ValueError, with its name, for a picture that is damaged.
        """
        return {"image": self._pixels(indices).float().mul_(1 / 255), "label": self.labels[indices]}

    def _pixels(self, indices: Int[Tensor, " B"]) -> UInt8[Tensor, "B C Y X"]:
        if self.cache is None:
            return self._decode(indices)
        missing = indices[~self.known[indices]].unique()
        if len(missing):
            self.cache[missing] = self._decode(missing)
            self.known[missing] = True
        return self.cache[indices]

    def _decode(self, indices: Int[Tensor, " B"]) -> UInt8[Tensor, "B C Y X"]:
        return torch.stack([decode(self.files[i], self.shape) for i in indices.tolist()])


def pictures(folder: str | Path, canvas: int | None = None, seed: int = 0) -> Splits:
    """The pictures `folder`/train/CLASS/* and `folder`/test/CLASS/* that end in .png, .jpg or .jpeg, in any case.

    Classes are numbered in the order of their names. A tenth of the training pictures, drawn with `seed`, is held out
    for validation, and before that a tenth for the test where there is no folder `test`. The canvas is
    `canvas` x `canvas` or, where that is None, as high and as wide as the median picture, made smaller until its
    longer side has at most 512 pixels. It has one channel if every file is a grey one, else three. See `Pictures`.

    Raises ValueError where a folder is missing, there are fewer than two classes, a class has no pictures, the test
    has a class that the training has not, too few pictures are left to train on, or a file is not a picture.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         (Path(folder) / "train" / name).mkdir(parents=True)
    ...         for i in range(20):
    ...             Image.new("L", (40, 30)).save(Path(folder) / "train" / name / f"{i}.png")
    ...     splits = pictures(folder)
    >>> splits.classes, splits.shape, len(splits.train), len(splits.valid), len(splits.test)
    (('cat', 'dog'), (1, 30, 40), 32, 4, 4)
    """
    folder = Path(folder)
    classes = _train_classes(folder / "train")
    train, test, remark = _train_and_test(folder, classes, seed)
    shape = _shape(train.files + test.files, canvas)
    train, valid = _apart(train, seed)
    if not train.files:
        raise ValueError(f"{folder} has too few pictures: none is left to train on after a tenth of each is held out")
    parts = Pictures(train, shape), Pictures(valid, shape), Pictures(test, shape)
    form = f"{len(classes)} classes on {shape[1]}x{shape[2]} pixels (height x width), {CHANNELS[shape[0]]}"
    return Splits(*parts, f"the pictures of {folder}: {count(*parts)}{remark}; {form}", classes, shape)


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _listing(root: Path, classes: tuple[str, ...]) -> Listing:
    found = [(file, i) for i, name in enumerate(classes) for file in _pictures_in(root / name)]
    return Listing([file for file, _ in found], torch.tensor([i for _, i in found], dtype=torch.long))


def _pictures_in(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if file.suffix.lower() in ENDINGS and not file.name.startswith("."))


def _train_classes(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise ValueError(f"folder {root} does not exist; pictures are read from FOLDER/train/CLASS/*.png, jpg or jpeg")
    classes = tuple(_folders(root))
    if len(classes) < 2:
        raise ValueError(f"{root} must have a folder for each of two classes or more; it has {len(classes)}")
    for name in classes:
        if not _pictures_in(root / name):
            raise ValueError(f"class folder {root / name} has no pictures that end in .png, .jpg or .jpeg")
    return classes


def _train_and_test(folder: Path, classes: tuple[str, ...], seed: int) -> tuple[Listing, Listing, str]:
    train = _listing(folder / "train", classes)
    if not (folder / "test").is_dir():
        return *_apart(train, seed), f" (there is no folder test: a tenth is held out for it with seed {seed})"
    for name in _folders(folder / "test"):
        if name not in classes:
            raise ValueError(f"class {name} in {folder / 'test'} is not among those of train: {', '.join(classes)}")
    test = _listing(folder / "test", classes)
    if not test.files:
        raise ValueError(f"{folder / 'test'} has no class folders with pictures that end in .png, .jpg or .jpeg")
    return train, test, ""


def _apart(listing: Listing, seed: int) -> tuple[Listing, Listing]:
    kept, held = hold_out(listing.labels, seed)
    return listing.take(kept), listing.take(held)


def _shape(files: list[Path], canvas: int | None) -> tuple[int, int, int]:
    if canvas is not None and canvas < 1:
        raise ValueError(f"canvas must be one pixel or more, not {canvas}")
    heads = [_head(file) for file in files]
    channels = 1 if all(mode in GREY for mode, _, _ in heads) else 3
    if canvas is not None:
        return channels, canvas, canvas
    height, width = median(y for _, y, _ in heads), median(x for _, _, x in heads)
    scale = min(1, LARGEST / max(height, width))
    return channels, max(1, round(height * scale)), max(1, round(width * scale))


def _head(file: Path) -> tuple[str, int, int]:
    """Mode, height and width as they would be upright; the pixels are not decoded."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            width, height = image.size
            # For a PNG, getexif would decode the whole picture.
            lying = image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) >= 5
            return (image.mode, width, height) if lying else (image.mode, height, width)
    except Exception as error:  # pillow raises what the format's reader happens to raise
        raise _unreadable(file, error) from error


def decode(file: Path, shape: tuple[int, int, int]) -> UInt8[Tensor, "C Y X"]:
    """The picture in `file`, centred on a canvas of `shape`; raises ValueError if it cannot be read."""
    import numpy as np
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with Image.open(file) as image:
            upright = _eight_bit(ImageOps.exif_transpose(image))
            # By way of RGBA, as pillow warns of a palette with transparency.
            plain = upright.convert("L") if channels == 1 else upright.convert("RGBA").convert("RGB")
            pixels = np.array(ImageOps.pad(plain, (width, height)))
    except Exception as error:  # as above
        raise _unreadable(file, error) from error
    return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)


def read_picture(file: str | Path, shape: tuple[int, int, int]) -> Float[Tensor, "C Y X"]:
    """The picture in a file as a model of images of `shape` expects it: what `Pictures` gives, in [0, 1].

    Raises ValueError if it cannot be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (40, 30), 255).save(Path(folder) / "white.png")
    ...     read_picture(Path(folder) / "white.png", (1, 30, 40)).unique()
    tensor([1.])
    """
    return decode(Path(file), shape).float().mul_(1 / 255)


def _eight_bit(image: Any) -> Any:
    """Grey of 16 bits, which pillow's own conversion would clip instead of scaling."""
    import numpy as np
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))


def _unreadable(file: Path, error: Exception) -> ValueError:
    return ValueError(f"picture {file} cannot be read: {error}")
