"""Tiled and pyramidal TIFF, OME-TIFF among them: only the tiles under a box are read and decoded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from regard.images.arrays import axes_of
from regard.images.files import Counted, opened, package
from regard.images.sources import Level
from regard.images.tiles import Header, Tiles, halves

COLOURS = ("MINISBLACK", "RGB", "YCBCR")
AHEAD = 1 << 16
"""Bytes that are fetched from a store at a time to learn where the tiles are."""
ROWS = 1 << 18
"""Bytes of whole rows that are read at a time where an image is neither tiled nor compressed."""


class Plane(NamedTuple):
    """Some channels of a level: where their tiles lie in the file, and how one is decoded."""

    decode: Callable[[bytes | None, int], np.ndarray]
    offsets: np.ndarray
    counts: np.ndarray
    first: int
    """The number by which the decoder knows the first of these tiles."""


class Open(NamedTuple):
    """An open file, what its image is, and the planes of each level."""

    file: Counted
    header: Header
    planes: Sequence[Sequence[Plane]]


class Tiff(Tiles):
    """The first image of a TIFF file with its pyramid, if it has one; a strip is a tile as wide as the image.

    Raises ValueError where tiles lie beyond the end of the file, their compression is unknown, or they are not grey or
    red, green and blue, with more channels perhaps.
    """

    def _open(self) -> Open:
        tifffile = package("tifffile", self.path)
        with opened(self.path, ahead=AHEAD) as file, tifffile.TiffFile(file, _multifile=False) as tiff:
            levels = _levels(tiff)
            axes_of(self.name, levels[0].shape, levels[0].axes.replace("S", "C"))
            kept = halves([(level.keyframe.imagelength, level.keyframe.imagewidth) for level in levels])
            planes = [[plane for page in levels[i].pages for plane in _planes(page)] for i in kept]
            header = _header(levels, kept)
            self.bytes += file.bytes
            _check_length(file, planes)
        return Open(opened(self.path), header, planes)

    def _header(self, opened: Open) -> Header:
        return opened.header

    def _decode(self, opened: Open, level: int, row: int, column: int) -> np.ndarray:
        number = row * -(-self.levels[level].width // self._tiles[level][1]) + column
        parts = [self._part(opened.file, plane, number) for plane in opened.planes[level]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, -1)

    def _part(self, file: Counted, plane: Plane, number: int) -> np.ndarray:
        """A tile of a plane."""
        count = int(plane.counts[number])
        file.seek(int(plane.offsets[number]))
        data = file.read(count) if count else None
        self.bytes += count
        if data is not None and len(data) < count:
            raise ValueError(f"it has {len(data):,} of its {count:,} bytes")
        return plane.decode(data, plane.first + number)


def _levels(tiff: Any) -> list[Any]:
    """The first image of a file and the smaller ones of it, which may also be pages of their own."""
    if not tiff.series:
        raise ValueError("it holds no image")
    first, *others = tiff.series
    pages = [each for each in others if each.keyframe.is_reduced and not each.keyframe.is_mask]
    alike = [each for each in pages if (each.axes, each.dtype) == (first.axes, first.dtype)]
    return [*first.levels, *sorted(alike, key=lambda each: -each.keyframe.imagelength)]


def _header(levels: Sequence[Any], kept: Mapping[int, Level]) -> Header:
    """What the image is, of which some levels are kept."""
    key = levels[0].keyframe
    colours = getattr(key.photometric, "name", str(key.photometric))
    if colours not in COLOURS:
        raise ValueError(f"its colours are {colours}, and only {', '.join(COLOURS)} are read")
    channels = len(levels[0].pages) * key.samplesperpixel
    largest = 2**key.bitspersample - 1 if key.dtype.kind == "u" else 0
    return Header(channels, list(kept.values()), [_tile(levels[i].keyframe) for i in kept], key.dtype, largest)


def _tile(page: Any) -> tuple[int, int]:
    """(rows, columns) of the tiles of a page."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    rows = max(1, ROWS // _row(page)) if page.is_final else page.rowsperstrip
    return min(rows, page.imagelength), page.imagewidth


def _row(page: Any) -> int:
    """The bytes of a row of a plane, where they are not compressed."""
    return page.imagewidth * page.shaped[-1] * page.dtype.itemsize


def _planes(page: Any) -> list[Plane]:
    """The planes of a page."""
    key = page.keyframe
    return _bare(page, key) if key.is_final and not key.is_tiled else _coded(page, key)


def _coded(page: Any, key: Any) -> list[Plane]:
    """The planes of a page in tiles or strips."""
    decode, shape, empty, kind = key.decode, (*_tile(key), key.shaped[-1]), key.nodata, key.dtype
    more = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
    decode(None, 0, **more)  # raises where compression or numbers are unknown

    def decoded(data: bytes | None, number: int) -> np.ndarray:
        tile = decode(data, number, **more)[0]
        return np.full(shape, empty, kind) if tile is None else tile[0]

    offsets, counts = (np.array(each, np.int64).reshape(key.shaped[0], -1) for each in _index(page))
    firsts = np.arange(len(offsets)) * offsets.shape[1]
    return [Plane(decoded, *each) for each in zip(offsets, counts, firsts.tolist(), strict=True)]


def _index(page: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Where the tiles of a page are, and of how many bytes."""
    if len(page.dataoffsets) != len(page.databytecounts) or not page.dataoffsets:
        raise ValueError(f"it says where {len(page.dataoffsets)} tiles are, and the size of {len(page.databytecounts)}")
    return page.dataoffsets, page.databytecounts


def _bare(page: Any, key: Any) -> list[Plane]:
    """The planes of a page that is nothing but its rows, some of which are a tile."""
    (rows, columns), samples, height, row = _tile(key), key.shaped[-1], key.imagelength, _row(key)
    kind = np.dtype(f"{key.parent.byteorder}{key.dtype.char}")
    firsts = np.arange(0, height, rows)
    counts = np.minimum(rows, height - firsts) * row

    def decoded(data: bytes | None, number: int) -> np.ndarray:
        return np.frombuffer(data or b"", kind).reshape(-1, columns, samples)

    starts = page.dataoffsets[0] + np.arange(key.shaped[0]) * height * row
    return [Plane(decoded, start + firsts * row, counts, 0) for start in starts]


def _check_length(file: Counted, planes: Sequence[Sequence[Plane]]) -> None:
    """Raises ValueError where tiles lie beyond the end of the file."""
    length = file.seek(0, 2)
    ends = np.concatenate([plane.offsets + plane.counts for level in planes for plane in level])
    if beyond := int((ends > length).sum()):
        raise ValueError(f"{beyond:,} of its {len(ends):,} tiles lie beyond its end, at {length:,} bytes")
