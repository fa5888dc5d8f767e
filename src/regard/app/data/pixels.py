"""The pixels of the pictures of a data set: checked before all else, given one form, and decoded when asked for."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from regard.app.vision import reading
from regard.app.vision.reading import Facts, File

LARGEST = 512  # pixels on the longer side of a canvas that is chosen from the pictures
CACHE = 256 * 2**20  # bytes up to which decoded pictures are kept
CHANNELS = {1: "grey", 3: "in colour"}
SHOWN = 10  # files that an error names


class Pixels:
    """Pictures of any size, each centred on a canvas of `shape` (C, Y, X), by their indices.

    A picture is scaled, larger or smaller, until it just fits, in its own proportions; what is left of the canvas is
    black. `bits` are those of the values of pictures of more than eight bits, in all of the data set: see
    `regard.app.vision.reading`. Pictures are decoded when they are asked for, and kept only if all take at most
    256 MiB, one byte a value.

    >>> len(Pixels([], (3, 64, 64)))
    0
    """

    def __init__(self, files: Sequence[File], shape: tuple[int, int, int], bits: int = 16):
        self.files, self.shape, self.bits = files, shape, bits
        small = len(files) * shape[0] * shape[1] * shape[2] <= CACHE
        self.cache = torch.empty(len(files), *shape, dtype=torch.uint8) if small else None
        self.known = torch.zeros(len(files), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Int[Tensor, " B"]) -> UInt8[Tensor, "B C Y X"]:
        """The pictures at `indices`. Raises ValueError, with its name, for one that is damaged."""
        if self.cache is None:
            return self._decoded(indices)
        missing = indices[~self.known[indices]].unique()
        if len(missing):
            self.cache[missing] = self._decoded(missing)
            self.known[missing] = True
        return self.cache[indices]

    def _decoded(self, indices: Int[Tensor, " B"]) -> UInt8[Tensor, "B C Y X"]:
        return torch.stack([reading.read(self.files[i], self.shape, self.bits) for i in indices.tolist()])


def checked(files: Sequence[File]) -> list[Facts]:
    """The facts of all pictures, each of which is decoded. Raises ValueError naming those that cannot be read."""
    with reading.quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_facts, files))
    if failed := [str(each) for each in found if isinstance(each, ValueError)]:
        more = f"; and {len(failed) - SHOWN:,} more" if len(failed) > SHOWN else ""
        raise ValueError(f"{len(failed):,} of {len(files):,} pictures fail: {'; '.join(failed[:SHOWN])}{more}")
    return [each for each in found if isinstance(each, Facts)]


def _facts(file: File) -> Facts | ValueError:
    try:
        return reading.facts(file)
    except ValueError as error:
        return error


def form(known: Sequence[Facts], canvas: int | None) -> tuple[int, int, int]:
    """The shape (C, Y, X) of a canvas for all pictures, `canvas` high and wide if that is given, else as the median one
    is, its longer side 512 at most; with one channel if every picture is grey."""
    channels = 1 if all(each.grey for each in known) else 3
    if canvas is not None:
        return channels, canvas, canvas
    height, width = median(each.height for each in known), median(each.width for each in known)
    scale = min(1, LARGEST / max(height, width))
    return channels, max(1, round(height * scale)), max(1, round(width * scale))


def on_canvas(shape: tuple[int, ...]) -> str:
    """That shape in words.

    >>> on_canvas((3, 30, 40))
    'on 30x40 pixels (height x width), in colour'
    """
    return f"on {shape[1]}x{shape[2]} pixels (height x width), {CHANNELS[shape[0]]}"


def bits_of(known: Sequence[Facts]) -> int:
    """The bits of the largest value of all pictures that have more than eight; 16 if none has."""
    return max((each.bits for each in known), default=0) or 16
