"""Images of tiles: what the kinds of files have in common, which only say how a file is opened and a tile decoded."""

import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regard.images.sources import Level

TILES, FILES = 1 << 24, 32


class Recent:
    """Things by their keys, those asked for most recently, of which all sizes make at most `limit`, or one is there.

    >>> squares = Recent(limit=2)
    >>> [squares.get(n, lambda n=n: (n * n, 1)) for n in (2, 3, 2, 4)], list(squares.held)
    ([4, 9, 4, 16], [2, 4])
    """

    def __init__(self, limit: int):
        self.limit, self.size = limit, 0
        self.held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """The thing of a key, which `make` makes along with its size where it is not there."""
        if key in self.held:
            self.held.move_to_end(key)
        else:
            self.held[key] = make()
            self.size += self.held[key][1]
        while self.size > self.limit and len(self.held) > 1:
            self.drop(next(iter(self.held)))
        return self.held[key][0]

    def drop(self, key: Hashable) -> None:
        """Forgets the thing of a key, if it is there."""
        self.size -= self.held.pop(key, (None, 0))[1]


class Cache:
    """What images keep of their files: decoded tiles, at most `size` bytes of them but always one, and at most `files`
    open files. Sources that are given one cache share it, so that a thousand of them take no more than one.

    A copy in another process, or a pickled one, begins empty.

    Raises ValueError if a number is below one.

    >>> Cache(2**30)
    Cache(size=1073741824, files=32)
    """

    def __init__(self, size: int = TILES, files: int = FILES):
        if size < 1 or files < 1:
            raise ValueError(f"Cache expected a size and files of at least 1, but got {size} and {files}.")
        self.tiles, self.files = Recent(size), Recent(files)

    def __getstate__(self) -> tuple[int, int]:
        return self.tiles.limit, self.files.limit

    def __setstate__(self, state: tuple[int, int]) -> None:
        self.__init__(*state)

    def __repr__(self) -> str:
        return f"Cache(size={self.tiles.limit}, files={self.files.limit})"


class Header(NamedTuple):
    """What is known of an image once its file is opened."""

    channels: int
    levels: Sequence[Level]
    tiles: Sequence[tuple[int, int]]
    """(rows, columns) of a tile of each level."""
    kind: np.dtype
    """Of a decoded tile."""
    largest: int = 0
    """What is white among whole numbers; that of their type if it is zero."""


class Tiles(ABC):
    """An image of tiles, each of which is decoded when a box over it is read, and kept in the cache.

    A kind of file says how one is opened, and how a tile is decoded. A file is opened once in each process, when it is
    first read there: neither what is pickled nor what a process inherits has open files. One thread at a time may read.
    """

    def __init__(self, path: str, cache: Cache | None = None):
        self.path, self.name, self.cache = path, printable(path), cache or Cache(files=1)
        self.bytes = self.tiles = 0
        self._own = object()
        with named(self.name):
            header = self._header(self._opened)
        self.levels: tuple[Level, ...] = tuple(header.levels)
        self._tiles, self._kind = tuple(header.tiles), header.kind
        self.shape = header.channels, self.levels[0].height, self.levels[0].width
        self.dtype, self._factor = scaling(self.name, header.kind, header.largest)

    @abstractmethod
    def _open(self) -> Any:
        """The file, open."""

    @abstractmethod
    def _header(self, opened: Any) -> Header:
        """What there is to know of the image in an open file."""

    @abstractmethod
    def _decode(self, opened: Any, level: int, row: int, column: int) -> np.ndarray:
        """A tile (rows, columns, C), which may go beyond the edges of the level; adds to `bytes` what it has read."""

    def crop(self, top: int, left: int, height: int, width: int, level: int = 0) -> Float[Tensor, "C height width"]:
        """A box of a level, in its pixels; what lies outside of the level is zero.

        Whole numbers are divided by the largest of their type, so that they lie in [0, 1]. Raises ValueError, with the
        name of the file, for a tile that is damaged.
        """
        extent, (rows, columns) = self.levels[level], self._tiles[level]
        pixels = np.zeros((height, width, self.shape[0]), self._kind)
        under = _steps(top, height, extent.height, rows), _steps(left, width, extent.width, columns)
        for row, column, tile in self._tiles_under(level, *under):
            within = tile[: extent.height - row * rows, : extent.width - column * columns]
            paste(within, pixels, row * rows - top, column * columns - left)
        return scaled(pixels, self.dtype, self._factor)

    @property
    def _opened(self) -> Any:
        """The file as this process has opened it."""
        return self.cache.files.get((self._own, os.getpid()), lambda: (self._open(), 1))

    def _forget(self) -> None:
        """Closes the file: the next tile opens it again."""
        self.cache.files.drop((self._own, os.getpid()))

    def _tiles_under(self, level: int, rows: range, columns: range) -> Iterator[tuple[int, int, np.ndarray]]:
        """The row, the column and the pixels of each of some tiles."""
        for row, column in product(rows, columns):
            yield row, column, self._tile(level, row, column)

    def _tile(self, level: int, row: int, column: int) -> np.ndarray:
        def decode() -> np.ndarray:
            with named(self.name, f"tile {row}, {column} of level {level}: "):
                return self._decode(self._opened, level, row, column)

        return self._kept(level, row, column, decode)

    def _kept(self, level: int, row: int, column: int, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """A tile from the cache, which is decoded and counted where it is not there."""

        def make() -> tuple[np.ndarray, int]:
            tile = decode()
            self.tiles += 1
            return tile, tile.nbytes

        return self.cache.tiles.get((self._own, level, row, column), make)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_own": None, "bytes": 0, "tiles": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _own=object())

    def __repr__(self) -> str:
        channels, height, width = self.shape
        return f"{type(self).__name__}({self.name!r}, {channels}x{height}x{width}, {len(self.levels)} levels)"


def halves(sizes: Sequence[tuple[int, int]]) -> dict[int, Level]:
    """The levels among the sizes (Y, X) that a file holds, by their index: the first, and those as large as it is
    halved some times, rounded either way. Others, of which a pixel is no whole number of its pixels, are not used.

    >>> list(halves([(1001, 500), (500, 250), (334, 167), (251, 125)]).values())
    [Level(height=1001, width=500, downsample=1), Level(height=500, width=250, downsample=2),
     Level(height=251, width=125, downsample=4)]
    """
    found: dict[int, Level] = {}
    for i, (height, width) in enumerate(sizes):
        downsample = 1 << max(0, round(np.log2(sizes[0][0] / height)))
        fits = all(abs(whole / downsample - small) < 1 for whole, small in zip(sizes[0], (height, width), strict=True))
        if fits and all(downsample > each.downsample for each in found.values()):
            found[i] = Level(height, width, downsample)
    return found


def scaling(name: str, kind: np.dtype, largest: int = 0) -> tuple[torch.dtype, float]:
    """The type in which numbers of a kind are read, and what they are multiplied with. Raises ValueError for others."""
    if kind.kind == "b":
        return torch.float32, 1.0
    if kind.kind in "iu":
        return torch.float32, 1 / (largest or np.iinfo(kind).max)
    if kind.kind == "f" and kind.itemsize <= 8:
        return torch.from_numpy(np.zeros((), kind.newbyteorder("="))).dtype, 1.0
    raise Unreadable(f"image {name} expected numbers, but holds {kind}.")


def scaled(pixels: np.ndarray, dtype: torch.dtype, factor: float) -> Float[Tensor, "C Y X"]:
    """Pixels (Y, X, C) as an image, multiplied with a factor."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), pixels.dtype.newbyteorder("="))
    image = torch.from_numpy(planes).to(dtype)
    return image if factor == 1 else image.mul_(factor)


def _steps(first: int, count: int, extent: int, size: int) -> range:
    """The numbers of the tiles of a size under `count` pixels from `first` on, within the extent."""
    last = min(first + count, extent)
    return range(max(first, 0) // size, -(-last // size)) if last > max(first, 0) else range(0)


def paste(tile: np.ndarray, pixels: np.ndarray, top: int, left: int) -> int:
    """Copies what lies of a tile over the pixels, where its corner is at (top, left) of them; how many bytes."""
    below = pixels[max(top, 0) : max(top + tile.shape[0], 0), max(left, 0) : max(left + tile.shape[1], 0)]
    above, before = max(-top, 0), max(-left, 0)
    below[...] = tile[above : above + below.shape[0], before : before + below.shape[1]]
    return below.nbytes


class Unreadable(ValueError):
    """What is wrong with an image, in a sentence that names it."""


@contextmanager
def named(name: str, what: str = "") -> Iterator[None]:
    """Says which image cannot be read, whatever the reader of its format raises."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(f"image {name} cannot be read: {what}{printable(reason) or type(error).__name__}") from error


def printable(text: object) -> str:
    """A text as it can be shown: on one line, and what cannot be printed escaped.

    >>> printable("two\\nlines \\x1b[1m")
    'two lines \\\\x1b[1m'
    """
    words = " ".join(str(text).split())
    return words if words.isprintable() else repr(words)[1:-1]
