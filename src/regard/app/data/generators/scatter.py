"""Digits scattered over a larger, cluttered canvas: the task of Mnih et al. 2014, Recurrent Models of Visual Attention.

A digit is put at a uniformly random place of an empty canvas, wholly inside it, and square pieces cut at random from
other digits are put at random places (their section 4.1: 60x60, four pieces of 8x8). Where things overlap the brighter
pixel is seen. A whole batch is built at once.
"""

import math

import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor

from regard.app.vision.jitter import jittered

PIECE = 8  # pixels on a side of a piece of clutter


class Scattered:
    """Digits on canvases of `canvas` x `canvas` pixels with `clutter` pieces of other digits, as a split.

    With `seed=None` every batch is scattered afresh with the generator that it is given: where the digit lies, which
    digits the pieces are cut from, where they are cut and where they are put. With a seed all that is fixed by the
    index of the example, so that every model sees the same images in whatever order and batches it asks for them. A
    canvas of the images' own size without clutter gives the images themselves. With `jitter` or `bend` above zero the
    digits of every batch, but not their clutter, are `jittered` by as much.

    images (N, h, w), labels (N,). Raises ValueError for a canvas that the images do not fit on, a negative clutter,
    jitter or bend, or clutter from images smaller than a piece or from a single image.

    >>> images = torch.full((3, 28, 28), 255, dtype=torch.uint8)
    >>> batch = Scattered(images, torch.tensor([7, 8, 9]), canvas=60, clutter=4).batch(torch.tensor([2, 0]))
    >>> batch["image"].shape, batch["label"], batch["box"].shape
    (torch.Size([2, 1, 60, 60]), tensor([9, 7]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        images: UInt8[Tensor, "N h w"],
        labels: Integer[Tensor, " N"],
        canvas: int = 60,
        clutter: int = 4,
        seed: int | None = None,
        jitter: float = 0.0,
        bend: float = 0.0,
    ):
        _check(images, canvas, clutter, jitter, bend)
        self.images, self.labels, self.canvas, self.clutter = images, labels.long(), canvas, clutter
        self.ink, self.jitter, self.bend = ink_box(images), jitter, bend
        self.fixed = None if seed is None else self._draw(len(images), torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The images at `indices`, scattered.

        Gives `image` (B, 1, canvas, canvas) in [0, 1], `label` (B,) and `box` (B, 4): the edges y0, x0, y1, x1 in
        pixels around the ink of the digit, y1 and x1 just beyond it. Without a generator torch's default one is used.
        """
        numbers = self._draw(len(indices), generator) if self.fixed is None else self.fixed[indices]  # (B, 2 + 5P)
        place, clutter = numbers[:, :2], numbers[:, 2:].unflatten(1, (self.clutter, 5))
        room = self.canvas + 1 - torch.tensor(self.images.shape[1:])
        corner = (place * room).long()  # (B, 2)
        canvas = self._clutter(indices, clutter)
        digits, ink = self.images[indices], self.ink[indices]
        if self.jitter or self.bend:
            digits = jittered(digits, self.jitter, self.bend, generator)
            ink = ink_box(digits)
        _lay(canvas, corner, digits)
        return {
            "image": canvas.unsqueeze(1).float().mul_(1 / 255),  # (B, 1, canvas, canvas)
            "label": self.labels[indices],
            "box": (ink + corner.repeat(1, 2)).float(),  # (B, 4)
        }

    def _draw(self, count: int, generator: torch.Generator | None) -> Float[Tensor, "B n"]:
        """Uniform numbers: two for the place of the digit, five for each piece of clutter."""
        return torch.rand(count, 2 + 5 * self.clutter, generator=generator, dtype=torch.float64)

    def _clutter(self, indices: Int[Tensor, " B"], numbers: Float[Tensor, "B P 5"]) -> UInt8[Tensor, "B canvas canvas"]:
        """Canvases with nothing but pieces of digits other than those at `indices`."""
        count, height, width = self.images.shape
        other = (indices[:, None] + 1 + (numbers[..., 0] * (count - 1)).long()) % count  # (B, P)
        cut = (numbers[..., 1:3] * (torch.tensor([height, width]) + 1 - PIECE)).long()  # (B, P, 2)
        put = (numbers[..., 3:5] * (self.canvas + 1 - PIECE)).long()
        pixels = other[..., None] * (height * width) + squares(cut, PIECE, PIECE, width)  # (B, P, 64)
        canvas = self.images.new_zeros(len(indices), self.canvas, self.canvas)
        places = squares(put, PIECE, PIECE, self.canvas)
        canvas.flatten(1).scatter_reduce_(1, places.flatten(1), self.images.flatten()[pixels].flatten(1), "amax")
        return canvas


def _lay(canvas: UInt8[Tensor, "B Y X"], corner: Int[Tensor, "B 2"], images: UInt8[Tensor, "B h w"]) -> None:
    places = squares(corner, images.shape[1], images.shape[2], canvas.shape[2])
    canvas.flatten(1).scatter_reduce_(1, places, images.flatten(1), "amax")


def squares(corner: Int[Tensor, "*S 2"], height: int, width: int, row: int) -> Int[Tensor, "*S n"]:
    """Where the pixels of rectangles lie in images that are flattened: the rectangles' corners are (y, x), `row` is
    the width of the images.

    >>> squares(torch.tensor([[1, 2]]), height=2, width=2, row=10)
    tensor([[12, 13, 22, 23]])
    """
    y = corner[..., 0, None, None] + torch.arange(height)[:, None]  # (*S, height, 1)
    x = corner[..., 1, None, None] + torch.arange(width)  # (*S, 1, width)
    return (y * row + x).flatten(-2)


def ink_box(images: UInt8[Tensor, "N h w"]) -> Int[Tensor, "N 4"]:
    """The edges y0, x0, y1, x1 around what is not black, y1 and x1 just beyond it; the whole of an empty image.

    >>> image = torch.zeros(1, 5, 5, dtype=torch.uint8)
    >>> image[0, 1:3, 2:5] = 255
    >>> ink_box(image)
    tensor([[1, 2, 3, 5]])
    """
    lines = [(images > 0).any(2).byte(), (images > 0).any(1).byte()]  # rows (N, h), columns (N, w)
    first = [line.argmax(1) for line in lines]
    last = [line.shape[1] - line.flip(1).argmax(1) for line in lines]
    return torch.stack(first + last, 1)


def _check(images: Tensor, canvas: int, clutter: int, jitter: float, bend: float) -> None:
    count, height, width = images.shape
    if canvas < max(height, width):
        raise ValueError(f"canvas must be at least {max(height, width)}, the size of the images, not {canvas}")
    for name, amount in (("jitter", jitter), ("bend", bend)):
        if not 0 <= amount < math.inf:
            raise ValueError(f"{name} must be a number, zero or more, not {amount}")
    if clutter < 0:
        raise ValueError(f"clutter must be the number of pieces, zero or more, not {clutter}")
    if clutter and (min(height, width) < PIECE or count < 2):
        raise ValueError(
            f"clutter is cut from other images of at least {PIECE}x{PIECE} pixels, not from {count} of {height}x{width}"
        )
