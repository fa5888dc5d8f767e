"""What judges whether two pieces belong together: where the strip at their seam is, and a network that reads it.

Le and Li 2018, "JigsawNet: shredded image reassembly using convolutional neural network and loop-based composition",
section 4.2: the calculation of the network is moved to the stitching region. A pair is four channels: red, green and
blue in [-1, 1], and one where there is paper, else zero.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

APART = 2
"""Columns from the beginning of a strip to that of the next."""
COARSE = 8
"""Pixels of a pair that are one in its view from afar."""
BLANK = 10.0
"""The weight of missing paper where to look is scored, at first."""
FLAT = 0.02
"""Added to how much neighbouring pixels differ, so that nothing is divided by zero."""


def starts(width: int, size: int) -> Int[Tensor, " K"]:
    """The columns where the strips of a pair begin, `size` pixels wide each.

    >>> starts(width=24, size=16)
    tensor([0, 2, 4, 6, 8])
    """
    return torch.arange(0, width - size + 1, APART)


def strips(pair: Float[Tensor, "B 4 y x"], begin: Int[Tensor, "*S B"], size: int) -> Float[Tensor, "*S B 4 y size"]:
    """A strip of each pair, `size` columns wide, from the column where it begins."""
    columns = (begin.unsqueeze(-1) + torch.arange(size, device=pair.device))[..., None, None, :]
    shape = (*begin.shape, *pair.shape[1:3], size)
    return pair.expand(*begin.shape, *pair.shape[1:]).gather(-1, columns.expand(shape))


def smaller(pair: Float[Tensor, "B 4 y x"], size: int) -> Float[Tensor, "B 4 h w"]:
    """The whole pair, made so small that it has about as many pixels as a strip."""
    scale = (size / pair.shape[-1]) ** 0.5
    return F.interpolate(pair, (round(pair.shape[2] * scale), round(pair.shape[3] * scale)), mode="area")


def even(pair: Float[Tensor, "B 4 y x"]) -> Float[Tensor, "B 4 y x"]:
    """Of mean zero, and divided by how much neighbouring pixels of a column differ: so pale photographs look like gaudy
    ones, and sharp ones like soft ones."""
    paper = pair[:, 3:]
    count = paper.sum((2, 3), keepdim=True).clamp(min=1)
    colours = (pair[:, :3] - (pair[:, :3] * paper).sum((2, 3), keepdim=True) / count) * paper
    apart = colours.diff(dim=2).abs().sum((1, 2, 3), keepdim=True) / (3 * count)
    return torch.cat((colours / (4 * apart + FLAT), paper), 1)


class Joiner(nn.Module):
    """Whether what is seen of pairs (B, 4, y, x), a strip or the whole, fits together: logits (B,)."""

    def __init__(self, filters: int = 16):
        super().__init__()
        channels = [(4, 1, (3, 7)), (1, 2, 3), (2, 2, 3), (2, 4, 3)]
        layers: list[nn.Module] = []
        for n, (inputs, outputs, kernel) in enumerate(channels):
            wide, stride = (filters * inputs if n else inputs), [1, (1, 2), 2, 2][n]
            padding = (1, 3) if n == 0 else 1
            layers += [nn.Conv2d(wide, filters * outputs, kernel, stride, padding)]  # pyright: ignore[reportArgumentType]
            layers += [nn.GroupNorm(4, filters * outputs), nn.ReLU()]
        self.network = nn.Sequential(*layers)
        self.judge = nn.Sequential(nn.Linear(8 * filters, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 1))

    def forward(self, seen: Float[Tensor, "B 4 y x"]) -> Float[Tensor, " B"]:
        found = self.network(even(seen).contiguous(memory_format=torch.channels_last)).flatten(2)
        return self.judge(torch.cat((found.mean(2), found.amax(2)), 1)).squeeze(1)


class Finder(nn.Module):
    """Scores of the strips of pairs (B, 4, y, x) from afar, (B, 1, K), where a pixel is the mean of 8 x 8: what a small
    convolutional network finds, at first nothing; and, with `prior`, more where there is less paper, whose weight is
    learned, too."""

    def __init__(self, height: int, size: int, prior: bool, hidden: int = 32):
        super().__init__()
        self.size, self.each = size, COARSE // APART
        self.blank = nn.Parameter(torch.tensor(BLANK)) if prior else None
        self.network = nn.Sequential(
            nn.Conv1d(4 * height // COARSE, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden, self.each, 1),
        )
        last: Any = self.network[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, pair: Float[Tensor, "B 4 y x"]) -> Float[Tensor, "B 1 K"]:
        view = F.avg_pool2d(pair, COARSE)
        found = self.network(view.flatten(1, 2))  # (B, each, x / 8)
        columns = found.mT.flatten(1)  # of the middles of strips, one in two columns
        if self.blank is not None:
            missing = 1 - view[:, 3:].mean(2)  # (B, 1, x / 8)
            columns = columns + self.blank * F.interpolate(missing, scale_factor=self.each, mode="linear").squeeze(1)
        first = self.size // 2 // APART
        return columns[:, first : first + len(starts(pair.shape[-1], self.size))].unsqueeze(1)


def steps(pair: Float[Tensor, "B 4 y x"], seam: Int[Tensor, " B"], gap: int) -> Float[Tensor, " B"]:
    """How much the colours step at the seam, by how much they step anyway as far apart beside it: no learning.

    What rules of puzzles measure (Gallagher 2012, "Jigsaw puzzles with pieces of unknown orientation", section 3), over
    the gap.
    """
    rows = torch.arange(len(pair), device=pair.device)
    left, right = seam - gap // 2 - 1, seam - gap // 2 + gap

    def step(one: Tensor, other: Tensor) -> Tensor:
        return (pair[rows, :3, :, one] - pair[rows, :3, :, other]).abs().mean((1, 2))

    beside = [step(left - n, left - n - gap - 1) + step(right + n, right + n + gap + 1) for n in range(3)]
    return (step(left, right) + FLAT) / (torch.stack(beside).mean(0) / 2 + FLAT)
