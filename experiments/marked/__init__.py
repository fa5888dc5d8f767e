"""Slides made of photographs: tiled pyramids of TIFF with a dozen marks pasted in, whose colours are the class.

A slide is a part of a photograph, turned by quarters and mirrored. A mark is a disc of checks in two colours, which
differ in red, in green, in blue or in all of them, and those of a slide are of one kind. The mean of the two is always
the same magenta: where marks are can be seen from afar, but not what they are. The photographs of the test are never
learned from.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from regard.app.data.joints import photographs
from regard.app.training.files import make_folder, write

SIDE, TILE, LEVELS = 2048, 128, 5
"""Pixels of a slide and of a tile, each way; and how often it is stored, each time half as large."""
MARKS, MARK, CHECK = 12, 96, 8
"""Marks of a slide; pixels across one, and across one of its checks."""
COUNTS = {"train": 75, "test": 25}
"""Slides of each class."""
MEAN, VARIED = (200.0, 55.0, 200.0), 10.0
"""The mean colour of a mark, red, green and blue, and by how much it varies."""
COLOURS = {"blue": (0, 0, 45), "bright": (45, 45, 45), "green": (0, 45, 0), "red": (45, 0, 0)}
"""By what one colour of a mark is above the mean and the other below, for each class."""
TABLE = "marks.json"
"""Where the marks of each slide lie: written last, so where it is all slides are there."""


class Marked(NamedTuple):
    """A slide, its class, and the upper left corners of its marks, (row, column) in pixels."""

    path: Path
    label: str
    corners: tuple[tuple[int, int], ...]


def checks(turn: float, size: int) -> Float[Tensor, "size size"]:
    """Checks of 1 and -1, turned by an angle.

    >>> checks(turn=0.0, size=64).unique().tolist(), round(float(checks(turn=0.3, size=64).mean()), 1)
    ([-1.0, 1.0], 0.0)
    """
    line = (torch.arange(size) - (size - 1) / 2) * torch.pi / CHECK
    y, x = torch.meshgrid(line, line, indexing="ij")
    sine, cosine = math.sin(turn), math.cos(turn)
    return ((cosine * y - sine * x).sin() * (sine * y + cosine * x).sin()).sign()


def paste(slide: UInt8[Tensor, "3 Y X"], label: str, top: int, left: int, generator: torch.Generator) -> None:
    """Puts a mark on a slide, in place, from its upper left corner on; how it is turned, and its mean colour, are
    drawn."""
    turn, *varied = (2 * torch.rand(4, generator=generator) - 1).tolist()
    mean = torch.tensor(MEAN) + VARIED * torch.tensor(varied)
    mark = mean.view(3, 1, 1) + torch.tensor(COLOURS[label]).view(3, 1, 1) * checks(turn * math.pi, MARK)
    line = torch.arange(MARK) - (MARK - 1) / 2
    disc = (MARK / 2 - (line.view(-1, 1).square() + line.square()).sqrt()).clamp(0, 1)
    under = slide[:, top : top + MARK, left : left + MARK]
    under.copy_((disc * mark + (1 - disc) * under).round().clamp(0, 255))


def part(photograph: UInt8[Tensor, "3 Y X"], generator: torch.Generator) -> UInt8[Tensor, "3 side side"]:
    """A part of a photograph as large as a slide, turned by quarters and perhaps mirrored."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    top, left = (draw(extent - SIDE + 1) for extent in photograph.shape[1:])
    turned = photograph[:, top : top + SIDE, left : left + SIDE].rot90(draw(4), (1, 2))
    return (turned.flip(2) if draw(2) else turned).clone()


def large_enough(photograph: UInt8[Tensor, "3 Y X"]) -> UInt8[Tensor, "3 y x"]:
    """A photograph, enlarged where it is smaller than a slide."""
    scale = SIDE / min(photograph.shape[1:])
    if scale <= 1:
        return photograph
    size = tuple(max(SIDE, round(extent * scale)) for extent in photograph.shape[1:])
    return F.interpolate(photograph[None].float(), size, mode="bicubic")[0].round().clamp(0, 255).byte()


def write_slides(photos: Path, folder: Path) -> None:
    """Writes slides of the photographs of a folder as train/CLASS/*.tif and test/CLASS/*.tif, unless they are there.
    The first third of the photographs, by their names, is that of the test.

    Raises ValueError as `photographs` does.
    """
    if not (folder / TABLE).exists():
        found = [each._replace(path=each.path.relative_to(folder)) for each in _made(photos, folder)]
        write(folder / TABLE, json.dumps(found, default=str).encode())


def read_marks(folder: Path) -> list[Marked]:
    """The slides of a folder."""
    rows = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    return [Marked(folder / path, label, tuple(map(tuple, corners))) for path, label, corners in rows]


def _made(photos: Path, folder: Path) -> Iterator[Marked]:
    """Writes one slide after the other."""
    found = [large_enough(each) for each in photographs(photos).values()]
    apart = max(1, len(found) // 3)
    of = {"test": found[:apart], "train": found[apart:]}
    generator = torch.Generator().manual_seed(0)
    for name, count in COUNTS.items():
        for label in COLOURS:
            make_folder(folder / name / label)
            for number in range(count):
                slide = part(of[name][number % len(of[name])], generator)
                places = torch.randint(SIDE - MARK + 1, (MARKS, 2), generator=generator).tolist()
                for top, left in places:
                    paste(slide, label, top, left, generator)
                path = folder / name / label / f"{number:03}.tif"
                write_pyramid(path, slide)
                yield Marked(path, label, tuple((top, left) for top, left in places))


def write_pyramid(path: Path, slide: UInt8[Tensor, "3 Y X"]) -> None:
    """Writes a slide as a tiled TIFF of JPEG with its smaller levels."""
    import tifffile

    how = {"tile": (TILE, TILE), "compression": "jpeg", "compressionargs": {"level": 90}, "photometric": "rgb"}
    level: Float[Tensor, "3 y x"] = slide.float()
    with tifffile.TiffWriter(path) as file:
        for number in range(LEVELS):
            pixels = level.round().byte().permute(1, 2, 0).contiguous().numpy()
            file.write(pixels, subfiletype=int(number > 0), metadata=None, **how)
            level = F.avg_pool2d(level, 2)


def touches(place: tuple[float, float], size: int, corner: tuple[int, int]) -> bool:
    """Whether a patch of so many pixels round a place (y, x), in pixels, has any of the mark in it that begins at a
    corner.

    >>> [touches(place, 50, (100, 100)) for place in ((148, 148), (90, 148), (70, 148), (85, 85))]
    [True, True, False, False]
    """
    apart = [abs(start + MARK / 2 - middle) for start, middle in zip(corner, place, strict=True)]
    return sum(max(each - size / 2, 0) ** 2 for each in apart) < (MARK / 2) ** 2
