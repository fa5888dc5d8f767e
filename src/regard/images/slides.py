"""Slides of microscopes, in the formats that OpenSlide knows."""

from typing import Any

import numpy as np

from regard.images.files import package
from regard.images.tiles import Header, Tiles, halves

TILE = 256
"""Rows and columns that are decoded at a time where a slide does not say."""


class Slide(Tiles):
    """A slide that OpenSlide reads, in red, green and blue, on white where nothing was scanned.

    OpenSlide does not say how many bytes it reads of a file: counted are those of the pixels that it gives. Where the
    size of a level is no exact half, it interpolates, and at the lower and right edges mixes in some white.
    """

    def _open(self) -> Any:
        return package("openslide", self.path).OpenSlide(self.path)

    def _header(self, opened: Any) -> Header:
        kept = halves([(height, width) for width, height in opened.level_dimensions])
        self._stored = list(kept)
        tiles = [(_tile(opened, i, "height"), _tile(opened, i, "width")) for i in kept]
        return Header(3, list(kept.values()), tiles, np.dtype(np.uint8))

    def _decode(self, opened: Any, level: int, row: int, column: int) -> np.ndarray:
        rows, columns = self._tiles[level]
        stored = self._stored[level]
        corner = [round(start * opened.level_downsamples[stored]) for start in (column * columns, row * rows)]
        try:
            pixels = np.asarray(opened.read_region(tuple(corner), stored, (columns, rows)))
        except Exception:
            self._forget()  # it reads no more after an error
            raise
        self.bytes += pixels.nbytes
        return _on_white(pixels)


def _tile(slide: Any, level: int, side: str) -> int:
    return int(slide.properties.get(f"openslide.level[{level}].tile-{side}", TILE))


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Colours (Y, X, 4) on white by how opaque they are."""
    colours, opaque = pixels[..., :3], pixels[..., 3:]
    if opaque.min(initial=255) == 255:
        return colours.copy()
    mixed = colours * (opaque / 255) + (255 - opaque.astype(np.float64))
    return mixed.round().astype(np.uint8)
