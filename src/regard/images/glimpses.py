"""The glimpse sensor of recurrent visual attention: sharp where it looks, coarse around it."""

from collections.abc import Sequence
from copy import copy
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from regard.images.sources import Source, pooled, windows


class Glimpses:
    """Square patches of images around a location, each twice as wide as the one before, all of one size.

    The sensor rho(x, l) of Mnih et al. 2014, "Recurrent Models of Visual Attention", section 3.1. Patch number
    s = 0 .. scales - 1 is a window of size x size pixels of the image mean-pooled by 2^s, so it covers size 2^s pixels
    of the image each way. These pooled images (the pyramid) are made once, when the sensor is made, and every glimpse
    only copies windows out of them.

    A location (y, x) lies in [-1, 1]: (-1, -1) is the top left corner and (1, 1) the bottom right corner, the outer
    edges of the image. On level s, which is Y / 2^s pixels high, it falls at c = (y + 1) / 2 * Y / 2^s pixels from the
    top, and the window is the one whose middle is nearest to it; of two that are equally near, the lower (and for x
    the right one):

        first row = floor(c - size / 2 + 1 / 2),    last row = first row + size - 1

    Therefore in the middle (y = 0) of an image of even height a window of even size is exactly centred, and one of
    odd size lies half a pixel low; in an image of odd height it is the other way round. Each level rounds to its own
    pixels, coarse levels to coarse ones. Whatever lies outside the image is zero, also within a pooled pixel that the
    edge of the image cuts; a location far outside, an infinite one or NaN reads only zeros.

    Gradients flow to the images. None flows to the location: it is rounded.

    Of a list of sources, which `open_image` makes of files, the same is read, but nothing is made beforehand: each
    glimpse reads the tiles under it. Sources may be of several sizes, and what is read is on the device of z.

    Args:
        images: (B, C, Y, X), of a floating point type, or B sources.
        size: the height and width of a patch in pixels; it may exceed the image.
        scales: how many patches a glimpse has.

    Attributes:
        pixels: how many values `read` has read so far: of a pyramid, counted where they are copied. What sources have
            read of their files they count themselves.

    Raises:
        TypeError: the images are neither a floating point tensor nor sources, or size or scales is not an integer.
        ValueError: the images are not (B, C, Y, X), or there are none, or sources differ in their number of channels,
            or size or scales is below one.

    >>> image = torch.arange(16.0).view(1, 1, 4, 4)
    >>> sensor = Glimpses(image, size=2, scales=2)
    >>> sensor.read(torch.tensor([[-0.5, 0.5]])).squeeze()     # the top right quarter, then its surroundings
    tensor([[[ 2.0000,  3.0000],
             [ 6.0000,  7.0000]],
    <BLANKLINE>
            [[ 4.5000,  0.0000],
             [12.5000,  0.0000]]])
    >>> sensor.pixels
    8
    """

    def __init__(self, images: Float[Tensor, "B C Y X"] | Sequence[Source], size: int, scales: int = 1):
        _check_images(images)
        _check_count("size", size)
        _check_count("scales", scales)
        self.size, self.scales, self.pixels = size, scales, 0
        if isinstance(images, Tensor):
            self._sources, self.channels = None, images.shape[1]
            levels = _pyramid(images, scales)
            self._values = _flat(levels, padding=size)
            self._address(images, self._measure([images.shape[-2:]], images.device)[0])
        else:
            self._sources, self.channels = list(images), images[0].shape[0]
            self._measure([source.shape[-2:] for source in images], torch.device("cpu"))

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._sources or self._rows)

    def _measure(self, sizes: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "n scales 2"]:
        """What takes a location to where its windows start, in pixels of the padded levels, and the sizes of the levels
        of the images of these sizes: of each, or of one for all."""
        levels = range(self.scales)
        halves = [[[extent / 2 ** (s + 1) for extent in size] for s in levels] for size in sizes]
        inside = [[[-(-extent // 2**s) for extent in size] for s in levels] for size in sizes]
        last = torch.tensor(inside, device=device) + self.size
        self._half = torch.tensor(halves, device=device)  # (n, scales, 2): half of the image
        self._middle = self._half + (self.size + 1) / 2  # (n, scales, 2): c - size / 2 + 1 / 2 at the middle, padded
        self._last = last.to(self._half)  # (n, scales, 2): where a window sees nothing but padding
        return last - self.size

    def _address(self, images: Tensor, inside: Tensor) -> None:
        """What takes the start of a window to the places of its rows among the values, as `_flat` laid them out."""
        batch, channels = images.shape[:2]
        width = inside[:, 1:] + self.size
        area = width * (inside[:, :1] + self.size)  # (scales, 1)
        each = batch * channels * area + self.size * (width + 1)
        level = (each.cumsum(0) - each)[:, None]  # (scales, 1, 1)
        channel = torch.arange(batch * channels, device=images.device).view(batch, 1, channels, 1)
        row = torch.arange(self.size, device=images.device) * width
        self._rows = level + channel * area[:, None] + row[:, None]  # (B, scales, C, size): of a window at the corner
        self._strides = torch.cat([width, torch.ones_like(width)], 1)  # (scales, 2)

    def read(
        self, z: Float[Tensor, "*S B 2"], scale: Int[Tensor, "*S B"] | None = None
    ) -> Float[Tensor, "*S B scales C size size"]:
        """The patches around the locations z, finest first; leading draws S share the pyramid. With a scale for each
        glimpse, 0 .. scales - 1, only the patch of that scale is read, (*S, B, 1, C, size, size). The numbers are not
        looked at, as they may be on a GPU: any other is an error of indexing.

        >>> sensor = Glimpses(torch.arange(16.0).view(1, 1, 4, 4), size=2, scales=2)
        >>> sensor.read(torch.zeros(1, 2), scale=torch.tensor([1])).squeeze()
        tensor([[ 2.5000,  4.5000],
                [10.5000, 12.5000]])

        Raises:
            TypeError: z is not a floating point tensor, or a scale is not an integer.
            ValueError: z is not (*S, B, 2), or the scale is not (*S, B).
        """
        self._check(z)
        if scale is not None:
            self._check_scale(scale, z)
        if self._sources is not None:
            starts = self._starts(z.cpu()) - self.size
            patches = windows(self._sources, starts, self.size, None if scale is None else scale.cpu()).to(z.device)
            self.pixels += patches.numel()
            return patches
        start, each = (self._starts(z) * self._strides).sum(-1), self._rows  # (*S, B, scales), (B, scales, C, size)
        if scale is not None:
            start = start.gather(-1, scale[..., None])
            each = each[torch.arange(len(self), device=each.device), scale].unsqueeze(-3)  # (*S, B, 1, C, size)
        rows = start[..., None, None] + each  # (*S, B, scales, C, size)
        self.pixels += rows.numel() * self.size
        return _stretches(self._values, rows, self.size)

    def _starts(self, z: Float[Tensor, "*S B 2"]) -> Int[Tensor, "*S B scales 2"]:
        """Where windows begin, in pixels of the padded levels."""
        start = torch.addcmul(self._middle, z.unsqueeze(-2), self._half)
        return start.fmin(self._last).clamp(min=0).long()  # fmin, as it takes NaN for the last place: padding

    def select(self, rows: Tensor) -> "Glimpses":
        """The sensor of some of the images, by their indices or a bool mask; the pyramid is shared, and what the new
        sensor reads it counts by itself.

        >>> few = Glimpses(torch.rand(5, 1, 28, 28), size=8).select(torch.tensor([4, 0]))
        >>> few.read(torch.zeros(2, 2)).shape, few.pixels
        (torch.Size([2, 1, 1, 8, 8]), 128)
        """
        few = copy(self)
        few.pixels = 0
        if self._sources is None:
            few._rows = self._rows[rows]
        else:
            chosen = torch.arange(len(self))[rows.cpu()]
            few._sources = [self._sources[i] for i in chosen.tolist()]
            few._half, few._middle, few._last = self._half[chosen], self._middle[chosen], self._last[chosen]
        return few

    def _check(self, z: Tensor) -> None:
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"z expected locations as a floating point tensor, but got {_kind(z)}.")
        batch = len(self)
        if z.ndim < 2 or z.shape[-2:] != (batch, 2):
            raise ValueError(f"z expected the shape (*S, {batch}, 2), one location an image, but got {tuple(z.shape)}.")

    def _check_scale(self, scale: Tensor, z: Tensor) -> None:
        if not isinstance(scale, Tensor) or scale.dtype != torch.long:
            raise TypeError(f"scale expected integers as a tensor of int64, but got {_kind(scale)}.")
        if scale.shape != z.shape[:-1]:
            raise ValueError(f"scale expected the shape {tuple(z.shape[:-1])}, as z, but got {tuple(scale.shape)}.")


def grid(height: int, width: int, size: int) -> Float[Tensor, "G 2"]:
    """The locations of the fewest glimpses whose finest patches cover the image from edge to edge.

    ceil(height / size) rows of ceil(width / size) patches, row by row, evenly spaced, rounded to whole pixels, each
    inside the image: they overlap a little where size does not divide the image. An image no larger than the patch
    has one, in its middle.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is below one.

    >>> grid(28, 14, 14)
    tensor([[-0.5000,  0.0000],
            [ 0.5000,  0.0000]])
    """
    for name, count in (("height", height), ("width", width), ("size", size)):
        _check_count(name, count)
    return torch.cartesian_prod(_line(height, size), _line(width, size))


def _line(extent: int, size: int) -> Float[Tensor, " N"]:
    """The middles, in [-1, 1], of the fewest windows of `size` pixels that cover `extent` pixels."""
    inside = min(size, extent)
    first = torch.linspace(0, extent - inside, -(-extent // size)).round()
    return (2 * first + inside) / extent - 1


def _pyramid(images: Tensor, scales: int) -> list[Tensor]:
    """The images pooled by 1, 2, 4, ..."""
    levels = [images]
    while len(levels) < scales:
        levels.append(pooled(levels[-1]))
    return levels


def _flat(levels: list[Tensor], padding: int) -> Float[Tensor, " P"]:
    """All the levels, each with zeros around it, one after another in one flat tensor.

    Each row is `padding` zeros and its pixels, each image `padding` rows of zeros and its own: the zeros to the left of
    a row are also those to the right of the row before it, and those above an image those below the one before it.
    """
    rows = [level.shape[0] * level.shape[1] * (level.shape[2] + padding) + padding for level in levels]
    widths = [level.shape[3] + padding for level in levels]
    ends = list(accumulate(count * width + padding for count, width in zip(rows, widths, strict=True)))
    values = levels[0].new_empty(ends[-1])
    for level, count, width, end in zip(levels, rows, widths, ends, strict=True):
        values[end - padding : end] = 0
        table = values[end - padding - count * width : end - padding].view(count, width)
        table[-padding:] = 0
        images = table[:-padding].view(*level.shape[:2], -1, width)
        images[:, :, :padding] = 0
        images[..., padding:, :padding] = 0
        images[..., padding:, padding:] = level
    return values


def _stretches(values: Float[Tensor, " P"], places: Int[Tensor, "*N"], length: int) -> Float[Tensor, "*N length"]:
    """The `length` consecutive values from each place on."""
    if values.requires_grad:  # the gradient of overlapping stretches is slow
        return values.take(places[..., None] + torch.arange(length, device=places.device))
    return F.embedding(places, values.unfold(0, length, 1))


def _check_images(images: Any) -> None:
    if isinstance(images, list | tuple):
        _check_sources(images)
    elif not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(f"images expected a floating point tensor or a list of sources, but got {_kind(images)}.")
    elif images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images expected the shape (B, C, Y, X), none of them zero, but got {tuple(images.shape)}.")


def _check_sources(sources: Sequence[Any]) -> None:
    if not sources:
        raise ValueError("images expected at least one source, but got none.")
    for source in sources:
        if not isinstance(source, Source):
            raise TypeError(f"images expected sources, which open_image gives, but got a list with {_kind(source)}.")
        if source.shape[0] != sources[0].shape[0]:
            raise ValueError(
                f"images expected one number of channels, but got {sources[0].shape[0]} in {sources[0].name} and "
                f"{source.shape[0]} in {source.name}."
            )


def _check_count(name: str, count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} expected an integer, but got {_kind(count)}.")
    if count < 1:
        raise ValueError(f"{name} expected at least 1, but got {count}.")


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
