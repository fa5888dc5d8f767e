"""Megapixel MNIST: a few digits, and many strokes that are none, on a large black canvas that is never made.

Katharopoulos and Fleuret 2019, "Processing megapixel images with deep attention-sampling models", section 4.2: five
digits on 1500 x 1500 pixels, three of them alike, and 50 pieces of noise. A scene is the pieces and where they lie;
windows of it and its view from afar are made of these. Bergner et al. 2023, "Iterative patch selection for
high-resolution image recognition", section 4.2, has four questions about a scene.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor

SIDE = 28
"""Pixels of a piece, each way."""
ALIKE, OTHERS = 3, 2
"""Digits of a scene that are of one kind, and the rest."""


class Pasted(NamedTuple):
    """Images that are pieces on black, as a sensor: what lies in windows of them is put together when it is read."""

    pieces: UInt8[Tensor, "B N h w"]
    """The pixels of each piece, h = w = 28."""
    corners: Int[Tensor, "B N 2"]
    """The row and the column where each begins."""
    side: int
    """Height and width of an image, in pixels."""
    size: int
    """Height and width of a window, in pixels."""

    def read(self, z: Float[Tensor, "S B 2"]) -> Float[Tensor, "S B 1 1 size size"]:
        """The windows round the locations (y, x), from -1 to 1, as `rg.Glimpses` of one scale gives them."""
        draws, batch, _ = z.shape
        first = ((z + 1) / 2 * self.side - self.size / 2 + 0.5).floor().long()  # (S, B, 2)
        apart = self.corners - first.unsqueeze(2)  # (S, B, N, 2)
        draw, row, piece = ((apart > -SIDE) & (apart < self.size)).all(-1).nonzero(as_tuple=True)
        wide = self.size + 2 * SIDE  # a piece that is cut by the edge of a window lies partly in its margin
        start = (apart[draw, row, piece] + SIDE) @ torch.tensor([wide, 1]) + (draw * batch + row) * wide**2
        inside = torch.arange(SIDE)
        pixels = start.view(-1, 1, 1) + inside.view(-1, 1) * wide + inside
        canvas = torch.zeros(draws * batch * wide**2)
        canvas.index_put_((pixels.flatten(),), self.pieces[row, piece].flatten() / 255, accumulate=True)
        windows = canvas.view(draws, batch, 1, 1, wide, wide)[..., SIDE:-SIDE, SIDE:-SIDE]
        return windows.contiguous()

    def view(self, side: int) -> Float[Tensor, "B 1 side side"]:
        """The whole images made smaller: each pixel is the mean of what lies under it."""
        scale = self.side / side
        cells = math.ceil(SIDE / scale) + 1  # that a piece may reach over
        first = (self.corners / scale).long()  # (B, N, 2)
        edges = (first.unsqueeze(-1) + torch.arange(cells)) * scale  # (B, N, 2, cells), in pixels
        pixels = self.corners.unsqueeze(-1) + torch.arange(SIDE)  # (B, N, 2, 28)
        over = torch.minimum(edges.unsqueeze(-1) + scale, pixels.unsqueeze(-2) + 1.0) - torch.maximum(
            edges.unsqueeze(-1), pixels.unsqueeze(-2).float()
        )
        rows, columns = (over.clamp(min=0) / scale).unbind(2)  # (B, N, cells, 28) each: shares of a cell
        small = rows @ (self.pieces / 255) @ columns.mT  # (B, N, cells, cells)
        wide = side + cells
        step = torch.arange(cells)
        places = (first @ torch.tensor([wide, 1])).view(*first.shape[:2], 1, 1) + step.view(-1, 1) * wide + step
        canvas = torch.zeros(len(first), wide * wide).scatter_add_(1, places.flatten(1), small.flatten(1))
        return canvas.view(-1, 1, wide, wide)[..., :side, :side].contiguous()


def covered(corners: Int[Tensor, "B N 2"], patches: Float[Tensor, "B k 2"], size: int) -> Float[Tensor, " B"]:
    """The share of the digits of each image that lie in one of its patches, but for two pixels at most, by the middles
    of the patches."""
    middles = corners[:, : ALIKE + OTHERS] + SIDE / 2  # (B, 5, 2)
    apart = (middles.unsqueeze(2) - patches.unsqueeze(1)).abs().amax(-1)  # (B, 5, k)
    return (apart <= (size - SIDE) / 2 + 2).any(2).float().mean(1)


def majority(labels: Int[Tensor, "B 5"], corners: Int[Tensor, "B N 2"]) -> Int[Tensor, " B"]:
    """The digit that is there three times, which stands first."""
    return labels[:, 0]


def highest(labels: Int[Tensor, "B 5"], corners: Int[Tensor, "B N 2"]) -> Int[Tensor, " B"]:
    """The largest digit."""
    return labels.amax(1)


def topmost(labels: Int[Tensor, "B 5"], corners: Int[Tensor, "B N 2"]) -> Int[Tensor, " B"]:
    """The digit that lies nearest to the top."""
    above = corners[:, : labels.shape[1], 0].argmin(1, keepdim=True)
    return labels.gather(1, above).squeeze(1)


def several(labels: Int[Tensor, "B 5"], corners: Int[Tensor, "B N 2"]) -> Int[Tensor, "B 10"]:
    """Of each digit whether it is there."""
    return F.one_hot(labels, 10).amax(1)


QUESTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "majority": majority,
    "max": highest,
    "top": topmost,
    "several": several,
}


class Megapixel:
    """Scenes of `side` x `side` pixels with five digits, the first three alike, and `noise` strokes, as a split.

    No two pieces overlap. With `seed=None` every batch has other scenes, drawn with the generator that it is given;
    with a seed they are fixed by the index. Raises ValueError for a canvas too small for its pieces.

    >>> images, labels = torch.full((20, 28, 28), 255, dtype=torch.uint8), torch.arange(20) % 10
    >>> batch = Megapixel(images, labels, count=6, question="majority", seed=0).batch(torch.tensor([2, 0]))
    >>> batch["pieces"].shape, batch["corners"].shape, batch["label"].shape
    (torch.Size([2, 55, 28, 28]), torch.Size([2, 55, 2]), torch.Size([2]))
    """

    def __init__(
        self,
        images: UInt8[Tensor, "M h w"],
        labels: Integer[Tensor, " M"],
        count: int,
        question: str,
        side: int = 1500,
        noise: int = 50,
        view: int = 180,
        seed: int | None = None,
    ):
        if side**2 < 8 * (ALIKE + OTHERS + noise) * SIDE**2:
            raise ValueError(f"side expected room for {ALIKE + OTHERS + noise} pieces of {SIDE} pixels, but got {side}")
        self.images, self.labels, self.count, self.question = images, labels.long(), count, question
        self.side, self.noise, self.view = side, noise, view
        self.of = [(self.labels == digit).nonzero().squeeze(1) for digit in range(10)]
        self.fixed = None if seed is None else self._draw(count, torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The scenes at `indices`: `pieces` (B, N, 28, 28) and `corners` (B, N, 2), digits first; `view` (B, 1, y, x),
        from afar; `label`, the answer to the question; and `index` (B,)."""
        fixed = self.fixed
        kinds, digits, strokes, corners = (
            self._draw(len(indices), generator) if fixed is None else [each[indices] for each in fixed]
        )
        pieces = torch.cat((self.images[digits], stroke(strokes)), 1)
        answer = QUESTIONS[self.question](kinds, corners)
        view = Pasted(pieces, corners, self.side, SIDE).view(self.view)
        return {"pieces": pieces, "corners": corners, "view": view, "label": answer, "index": indices}

    def _draw(self, count: int, generator: torch.Generator | None) -> list[Tensor]:
        """The kinds and the numbers of the digits of scenes, of each stroke three numbers, and the corners of all."""
        kinds = torch.rand(count, 10, generator=generator).argsort(1)[:, : 1 + OTHERS]
        kinds = torch.cat((kinds[:, :1].expand(-1, ALIKE), kinds[:, 1:]), 1)  # (count, 5)
        which = torch.rand(kinds.shape, generator=generator)
        sizes = torch.tensor([len(each) for each in self.of])
        first = F.pad(sizes.cumsum(0), (1, 0))[:-1]
        digits = torch.cat(self.of)[(first[kinds] + (which * sizes[kinds]).long())]
        strokes = torch.rand(count, self.noise, 3, generator=generator)
        return [kinds, digits, strokes, apart(count, ALIKE + OTHERS + self.noise, self.side, generator)]


def apart(count: int, pieces: int, side: int, generator: torch.Generator | None = None) -> Int[Tensor, "count N 2"]:
    """Corners of pieces that do not overlap: those that do are drawn again.

    >>> corners = apart(3, 20, 400, torch.Generator().manual_seed(0))
    >>> near = (corners.unsqueeze(1) - corners.unsqueeze(2)).abs().amax(-1) < SIDE
    >>> int(near.sum())  # each piece with itself
    60
    """
    corners = torch.randint(side - SIDE + 1, (count, pieces, 2), generator=generator)
    while True:
        near = (corners.unsqueeze(1) - corners.unsqueeze(2)).abs().amax(-1) < SIDE  # (count, N, N)
        again = near.tril(-1).any(-1)
        if not again.any():
            return corners
        others = torch.randint(side - SIDE + 1, (count, pieces, 2), generator=generator)
        corners = torch.where(again.unsqueeze(-1), others, corners)


def stroke(numbers: Float[Tensor, "B N 3"]) -> UInt8[Tensor, "B N h w"]:
    """Straight strokes across a piece, h = w = 28, two pixels wide: their angle, their distance from its middle, and
    their brightness, from numbers in [0, 1)."""
    angle, away, bright = numbers.unsqueeze(-1).unsqueeze(-1).unbind(2)  # (B, N, 1, 1)
    middle = torch.arange(SIDE) - (SIDE - 1) / 2
    angle, away = math.pi * angle, SIDE / 3 * (2 * away - 1)
    distance = (middle.view(-1, 1) * angle.cos() + middle * angle.sin() - away).abs()
    return ((1.5 - distance).clamp(0, 1) * (127 + 128 * bright)).to(torch.uint8)
