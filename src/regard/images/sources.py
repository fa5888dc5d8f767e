"""What lies under an image that is too large to hold: sources, of which a box is read at a time."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 1 << 20
"""Pixels that are pooled at a time."""


class Level(NamedTuple):
    """The size of an image that is stored, and by how much it is smaller than the whole one."""

    height: int
    width: int
    downsample: int
    """A power of two."""


@runtime_checkable
class Source(Protocol):
    """An image of which a box is read at a time: from memory, a file or a store."""

    name: str
    """Of the file, for messages."""
    shape: tuple[int, int, int]
    """(C, Y, X)."""
    dtype: torch.dtype
    """Of what is read: a floating point type."""
    levels: tuple[Level, ...]
    """What is stored: first the image itself, then the smaller ones that there are."""
    bytes: int
    """Read so far, as they lie in the file."""
    tiles: int
    """Decoded so far."""

    def crop(self, top: int, left: int, height: int, width: int, level: int = 0) -> Float[Tensor, "C height width"]:
        """A box of a level, in its pixels; what lies outside of the level is zero."""
        ...


def shrunk(source: Source, scale: int, top: int, left: int, height: int, width: int) -> Float[Tensor, "C height width"]:
    """A box of the image mean-pooled by 2^scale, in its pixels; what lies outside is zero, also within a pixel.

    It is read from the smallest stored level that is large enough, and only what is left is pooled. Memory is that of
    the box and of a block, however many pixels lie under it.

    >>> from regard import open_image
    >>> shrunk(open_image(torch.arange(16.0).view(1, 4, 4)), 1, 0, 0, 2, 3)
    tensor([[[ 2.5000,  4.5000,  0.0000],
             [10.5000, 12.5000,  0.0000]]])
    """
    rows, columns = (-(-extent // 2**scale) for extent in source.shape[1:])
    above, below = _outside(top, height, rows)
    before, behind = _outside(left, width, columns)
    level = max(i for i, each in enumerate(source.levels) if each.downsample <= 2**scale)
    times = scale - (source.levels[level].downsample.bit_length() - 1)
    box = top + above, left + before, height - above - below, width - before - behind
    inside, around = _reduced(source, level, times, *box), (before, behind, above, below)
    return F.pad(inside, around) if any(around) else inside


def overview(source: Source, scale: int) -> Float[Tensor, "C Y X"]:
    """The whole image mean-pooled by 2^scale, as a glimpse of that scale sees it.

    >>> from regard import open_image
    >>> overview(open_image(torch.arange(16.0).view(1, 4, 4)), 2)
    tensor([[[7.5000]]])
    """
    height, width = (-(-extent // 2**scale) for extent in source.shape[1:])
    return shrunk(source, scale, 0, 0, height, width)


def windows(
    sources: Sequence[Source],
    first: Int[Tensor, "*S B scales 2"],
    size: int,
    scale: Int[Tensor, "*S B"] | None = None,
) -> Tensor:
    """Windows of size x size pixels of each image at each scale from `first` on, (*S, B, scales, C, size, size), or at
    the given scale alone, (*S, B, 1, C, size, size)."""
    read = torch.arange(first.shape[-2]).expand(first.shape[:-1]) if scale is None else scale.unsqueeze(-1)
    starts = first.gather(-2, read.unsqueeze(-1).expand(*read.shape, 2)).reshape(-1, *read.shape[-2:], 2).tolist()
    scales = read.reshape(-1, *read.shape[-2:])
    dtype = torch.stack([torch.zeros((), dtype=source.dtype) for source in sources]).dtype
    patches = torch.empty(*scales.shape, sources[0].shape[0], size, size, dtype=dtype)
    for (draw, row, n), level in zip(product(*map(range, scales.shape)), scales.flatten().tolist(), strict=True):
        top, left = starts[draw][row][n]
        patches[draw, row, n] = shrunk(sources[row], level, top, left, size, size)
    return patches.view(*read.shape, *patches.shape[-3:])


def pooled(images: Float[Tensor, "*B Y X"]) -> Tensor:
    """The means of 2 x 2 pixels, with zeros beyond an odd edge (written out: faster than avg_pool2d on the CPU)."""
    height, width = images.shape[-2:]
    if height % 2 or width % 2:
        images = F.pad(images, (0, width % 2, 0, height % 2))
    rows = images[..., ::2, :] + images[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def _outside(first: int, count: int, extent: int) -> tuple[int, int]:
    """How many of `count` pixels from `first` on lie before 0, and how many lie at `extent` or beyond."""
    before = min(max(-first, 0), count)
    return before, min(max(first + count - extent, 0), count - before)


def _reduced(source: Source, level: int, times: int, top: int, left: int, height: int, width: int) -> Tensor:
    """A box of a level pooled by 2^times, from blocks where it is large."""
    if times == 0 or 0 in (height, width):
        return source.crop(top, left, height, width, level)
    if height * width > max(1, BLOCK >> 2 * times):
        return _halves(source, level, times, top, left, height, width)
    return pooled(_reduced(source, level, times - 1, 2 * top, 2 * left, 2 * height, 2 * width))


def _halves(source: Source, level: int, times: int, top: int, left: int, height: int, width: int) -> Tensor:
    """The same box from its two halves, along its longer side."""
    if height >= width:
        half = height // 2
        boxes = (top, left, half, width), (top + half, left, height - half, width)
    else:
        half = width // 2
        boxes = (top, left, height, half), (top, left + half, height, width - half)
    return torch.cat([_reduced(source, level, times, *box) for box in boxes], -2 if height >= width else -1)
