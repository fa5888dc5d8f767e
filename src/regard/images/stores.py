"""Images in zarr stores, in a folder or in a store that fsspec knows: only the chunks under a box are fetched."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regard.images.arrays import axes_of, by_axes
from regard.images.files import is_remote, package
from regard.images.tiles import Cache, Header, Tiles, halves, named


class Open(NamedTuple):
    """An open store, and the arrays of its levels."""

    store: Any
    arrays: Sequence[Any]
    axes: str
    header: Header


class Zarr(Tiles):
    """An image in a zarr array, or in the group of such levels that OME-Zarr calls multiscales; a chunk is a tile."""

    def __init__(self, path: str, cache: Cache | None = None, axes: str | None = None):
        self.axes = axes
        super().__init__(path, cache)

    def _open(self) -> Open:
        zarr = package("zarr", self.path)
        if is_remote(self.path):
            store = zarr.storage.FsspecStore.from_url(self.path, read_only=True)
        else:
            store = zarr.storage.LocalStore(Path(self.path).resolve(strict=True), read_only=True)
        counting = _counting(zarr, store)
        arrays, axes = _levels(zarr.open(counting, mode="r"))
        axes = axes_of(self.name, arrays[0].shape, self.axes or axes)
        kept = halves([tuple(each.shape[axes.index(letter)] for letter in "YX") for each in arrays])
        arrays = [arrays[i] for i in kept]
        tiles = [tuple(each.chunks[axes.index(letter)] for letter in "YX") for each in arrays]
        channels = arrays[0].shape[axes.index("C")] if "C" in axes else 1
        self.bytes += counting.bytes
        return Open(counting, arrays, axes, Header(channels, list(kept.values()), tiles, arrays[0].dtype))

    def _header(self, opened: Open) -> Header:
        return opened.header

    def _decode(self, opened: Open, level: int, row: int, column: int) -> np.ndarray:
        return self._chunks(opened, level, range(row, row + 1), range(column, column + 1))

    def _tiles_under(self, level: int, rows: range, columns: range) -> Iterator[tuple[int, int, np.ndarray]]:
        """All chunks that are missing are fetched at once."""
        held = self.cache.tiles.held
        missing = [at for at in product(rows, columns) if (self._own, level, *at) not in held]
        if len(missing) < 2 or len(missing) < len(rows) * len(columns):
            yield from super()._tiles_under(level, rows, columns)
            return
        with named(self.name, f"a tile of {rows[0]}, {columns[0]} to {rows[-1]}, {columns[-1]} of level {level}: "):
            block = self._chunks(self._opened, level, rows, columns)
        height, width = self._tiles[level]
        for row, column in missing:
            top, left = (row - rows[0]) * height, (column - columns[0]) * width
            tile = block[top : top + height, left : left + width].copy()
            yield row, column, self._kept(level, row, column, lambda tile=tile: tile)

    def _chunks(self, opened: Open, level: int, rows: range, columns: range) -> np.ndarray:
        """The pixels of some chunks."""
        height, width = self._tiles[level]
        under = {"Y": slice(rows[0] * height, rows.stop * height), "X": slice(columns[0] * width, columns.stop * width)}
        before = opened.store.bytes
        pixels = opened.arrays[level][tuple(under.get(letter, slice(None)) for letter in opened.axes)]
        self.bytes += opened.store.bytes - before
        return by_axes(np.asarray(pixels), opened.axes)


def _levels(node: Any) -> tuple[list[Any], str | None]:
    """The arrays in a node of a store, the largest first, and the letters of their axes if it says them."""
    if hasattr(node, "chunks"):
        names = getattr(node.metadata, "dimension_names", None) or [""]
        return [node], _letters(names) if all(names) else None
    scales = node.attrs.get("ome", node.attrs).get("multiscales")
    if not scales:
        names = ", ".join(sorted(name for name, _ in node.arrays())) or "none"
        raise ValueError(f"it is a group of arrays, of which one is to be named: {names}")
    axes = [each["name"] if isinstance(each, dict) else each for each in scales[0].get("axes", ())]
    return [node[each["path"]] for each in scales[0]["datasets"]], _letters(axes) if axes else None


def _letters(names: Sequence[str]) -> str:
    return "".join(name[:1].upper() for name in names)


def _counting(zarr: Any, store: Any) -> Any:
    """A store that counts the bytes that are fetched from another."""

    class Counting(zarr.storage.WrapperStore):
        bytes = 0

        async def get(self, key: str, *given: Any, **more: Any) -> Any:
            found = await super().get(key, *given, **more)
            self.bytes += 0 if found is None else len(found)
            return found

    return Counting(store)
