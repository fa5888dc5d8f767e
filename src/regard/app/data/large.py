"""Your own images that are too large to hold: a folder for each class, or a table of paths and labels.

Any format that `regard.open_image` knows. Nothing is read before it is looked at, but for the header of each file and,
once, what a view from afar needs.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

import regard as rg
from regard.app.data.files import contents
from regard.app.data.folder import NONE, SHOWN, Listing, apart, class_folders, classes_of, listing
from regard.app.data.splits import Splits, count
from regard.app.text.reading import lines, printable
from regard.images import ENDINGS, Cache, Source, overview

COLUMNS = ("path", "label")


class Opened(NamedTuple):
    """Images that are open, in a batch of tensors."""

    sources: tuple[Source, ...]

    def to(self, *_: object, **__: object) -> "Opened":
        """These: what is read of them is moved."""
        return self


KEPT = 1 << 30
"""Bytes of views that are kept, at most; further ones are made anew."""


class Large:
    """Images in files as a split: what they look like from afar, and the open files to look into.

    A batch has `view` (B, C, side, side), each the whole image made as small; `image`, an `Opened`; `label` and `index`
    (B,). All images share one cache. Raises ValueError that names the files that cannot be opened.
    """

    def __init__(self, listing: Listing, side: int):
        self.labels, self.side = listing.labels, side
        self.sources, wrong, cache = [], [], Cache()
        for file in listing.files:
            try:
                self.sources.append(rg.open_image(file, cache=cache))
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError(
                f"{len(wrong)} of {len(listing.files)} images cannot be opened: " + "; ".join(wrong[:SHOWN])
            )
        self.views: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The images at `indices`; nothing in them is random."""
        numbers = indices.tolist()
        views = torch.stack([self._view(number) for number in numbers])
        image = Opened(tuple(self.sources[number] for number in numbers))
        return {"view": views, "image": image, "label": self.labels[indices], "index": indices}  # pyright: ignore[reportReturnType]

    def _view(self, number: int) -> Tensor:
        if number in self.views:
            return self.views[number]
        found = view(self.sources[number], self.side)
        if (1 + len(self.views)) * found.nbytes <= KEPT:
            self.views[number] = found
        return found


def view(source: Source, side: int) -> Float[Tensor, "C side side"]:
    """The whole image as side x side pixels, each the mean of about what lies under it.

    >>> view(rg.open_image(torch.arange(16.0).view(1, 4, 4)), 2)
    tensor([[[ 2.5000,  4.5000],
             [10.5000, 12.5000]]])
    """
    scale = max(0, (min(source.shape[1:]) // side).bit_length() - 1)
    return F.interpolate(overview(source, scale).unsqueeze(0).float(), (side, side), mode="area").squeeze(0)


def large_images(path: str | Path, side: int, seed: int = 0) -> Splits:
    """The images `path`/train/CLASS/* and `path`/test/CLASS/*; without the latter a tenth is held out to be judged by.
    A tenth of the training images is held out to choose by. Or `path` is a CSV file with the columns path and label,
    paths being relative to it.

    `shape` is the median of the sizes. Raises ValueError where there are not two classes, a file cannot be opened (all
    those are named), or files differ in their channels.
    """
    path = Path(path)
    train, test, classes = _table(path) if path.is_file() else _folder(path)
    if not test.files:
        train, test = apart(train, seed)
    train, valid = apart(train, seed)
    if not train.files:
        raise ValueError(f"{printable(path)} has too few images: none is left to train on after a tenth is held out")
    parts = Large(train, side), Large(valid, side), Large(test, side)
    shapes = torch.tensor([source.shape for part in parts for source in part.sources])
    if len(set(shapes[:, 0].tolist())) > 1:
        raise ValueError(f"{printable(path)} expected images of as many channels, but got {_channels(parts)}")
    shape = tuple(shapes.median(0).values.tolist())
    about = f"the images of {printable(path)}: {count(*parts)}, up to {shapes[:, 1:].max():,} pixels wide or high"
    return Splits(*parts, f"{about}; {len(classes)} classes", classes, shape)


def large_images_to_test(path: str | Path, classes: Sequence[str], side: int) -> Splits:
    """Images to test what was trained on others, with its classes; the other parts are empty.

    Raises ValueError as `large_images` does, and for a class that is none of these.
    """
    train, test, found = _table(Path(path)) if Path(path).is_file() else _folder(Path(path))
    listing = test if test.files else apart(train, 0)[1]
    if others := [name for name in found if name not in classes]:
        raise ValueError(f"{printable(path)} expected the classes {', '.join(classes)}, but got {others[0]!r}")
    numbers = torch.tensor([classes.index(name) for name in found])
    none, part = Large(NONE, side), Large(Listing(listing.files, numbers[listing.labels]), side)
    return Splits(none, none, part, f"the images of {printable(path)}: {len(part):,}", tuple(classes))


def _folder(folder: Path) -> tuple[Listing, Listing, tuple[str, ...]]:
    """What there is to learn from and to judge by, and the classes."""
    found = class_folders(folder / "train", ENDINGS)
    classes = classes_of(found)
    tested = class_folders(folder / "test", ENDINGS) if (folder / "test").is_dir() else None
    return listing(found, classes), listing(tested, classes) if tested else NONE, classes


def _table(file: Path) -> tuple[Listing, Listing, tuple[str, ...]]:
    """The paths and the labels of a table."""
    rows = list(csv.DictReader(lines(contents(file), printable(file))))
    if not rows or any(name not in rows[0] for name in COLUMNS):
        raise ValueError(f"{printable(file)} expected the columns path and label, and a row for each image")
    for number, row in enumerate(rows, 2):
        if not all(row[name] for name in COLUMNS):
            raise ValueError(f"{printable(file)}, line {number}: expected a path and a label")
    classes = tuple(sorted({row["label"] for row in rows}))
    if len(classes) < 2:
        raise ValueError(f"{printable(file)} expected two labels or more, but all images have {rows[0]['label']!r}")
    labels = torch.tensor([classes.index(row["label"]) for row in rows])
    return Listing([file.parent / row["path"] for row in rows], labels), NONE, classes


def _channels(parts: Sequence[Large]) -> str:
    """How many files have how many channels."""
    counts = Counter(source.shape[0] for part in parts for source in part.sources)
    return ", ".join(f"{number} files with {channels}" for channels, number in sorted(counts.items()))
