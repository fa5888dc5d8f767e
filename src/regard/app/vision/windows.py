"""Windows of Gaussian filters that a network places over an image, to read it and to paint on it: Gregor et al. 2015,
"DRAW: A Recurrent Neural Network For Image Generation", section 3.2."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

import regard as rg

LARGEST = 3.0
"""The logarithm of how many times wider, or narrower, than at first a window can become."""


class Placed(NamedTuple):
    """A window over images, and what belongs to it."""

    filters: rg.GaussianGrid
    side: Tensor
    """How many pixels it reaches over, half a stride beyond its outer filters included, (*B, 1)."""
    scales: Tensor
    """The logarithms of the side and of the filters' width, each relative to what it is at first, (*B, 2)."""
    gain: Tensor
    """The intensity of what is read or written, (*B, 1, 1, 1)."""

    def read(self, *images: Tensor) -> Tensor:
        """The patches (*B, C, N, N) that are seen in the images (*B, C, Y, X), equation 27, one after another."""
        return self.filters.read(*images) * self.gain

    def write(self, patches: Tensor) -> Tensor:
        """The patches on images, equation 29, so bright that as many pixels as there are to a filter add up to it."""
        area = (self.side / self.filters.size).square()[..., None, None]
        return self.filters.write(patches * (self.gain * area))

    def edges(self) -> Tensor:
        """y0, x0, y1, x1 in pixels, (*B, 4)."""
        extent = self.side.new_tensor(self.filters.shape)
        middle = (self.filters.centre + 1) / 2 * extent
        return torch.cat((middle - self.side / 2, middle + self.side / 2), -1)


class Window(nn.Module):
    """Places a window of N x N filters by a linear function of a state (*B, H): its centre, the logarithms of its
    stride, its width and its intensity (equation 21), all within bounds. At first it covers a `share` of the
    image's longer side, with filters half a stride wide.

    >>> placed = Window(8, 4, (1, 28, 20)).requires_grad_(False)(torch.zeros(2, 8))
    >>> placed.side.squeeze(-1), placed.edges()[0]
    (tensor([28., 28.]), tensor([ 0., -4., 28., 24.]))
    """

    bounds: Tensor
    first: Tensor

    def __init__(self, hidden: int, size: int, shape: Sequence[int], share: float = 1.0):
        super().__init__()
        self.size, self.shape, self.longest = size, (shape[-2], shape[-1]), share * max(shape[-2:])
        self.place = nn.Linear(hidden, 5)
        self.register_buffer("bounds", torch.tensor([1.0, 1.0, *3 * [LARGEST]]), persistent=False)
        self.register_buffer("first", self.longest / size * 2 / torch.tensor(self.shape), persistent=False)
        nn.init.normal_(self.place.weight, std=0.01)
        nn.init.zeros_(self.place.bias)

    def forward(self, state: Tensor) -> Placed:
        centre, scales = (self.bounds * (self.place(state).float() / self.bounds).tanh()).split((2, 3), -1)
        stride, width, gain = scales.exp().split(1, -1)
        side = self.longest * stride
        stride = stride * self.first  # as many pixels down as across
        filters = rg.GaussianGrid(centre, stride, stride * width / 2, self.size, self.shape)
        return Placed(filters, side, scales[..., :2], gain[..., None, None])


def frames(windows: Sequence[Placed | None]) -> Tensor | None:
    """The edges (B, T, 4) in pixels of the windows (B) of T steps; None of steps without windows."""
    edges = [window.edges() for window in windows if window is not None]
    return torch.stack(edges, 1) if edges else None
