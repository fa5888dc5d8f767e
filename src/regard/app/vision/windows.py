"""Windows of Gaussian filters that a network places over an image, to read it and to paint on it.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation", section 3.2; `config` is that of the recipe
draw.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

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

    def read(self, images: Tensor) -> Tensor:
        """The patches (*B, C, N, N) that are seen in the images (*B, C, Y, X), equation 27."""
        return self.filters.read(images) * self.gain

    def write(self, patches: Tensor) -> Tensor:
        """The patches on images, equation 29, so bright that as many pixels as there are to a filter add up to it."""
        area = (self.side / self.filters.size).square()[..., None, None]
        return self.filters.write(patches * self.gain * area)

    def edges(self) -> Tensor:
        """y0, x0, y1, x1 in pixels, (*B, 4)."""
        extent = self.side.new_tensor(self.filters.shape)
        middle = (self.filters.centre + 1) / 2 * extent
        return torch.cat((middle - self.side / 2, middle + self.side / 2), -1)


class Window(nn.Module):
    """Places a window of N x N filters by a linear function of a state (*B, H): its centre, the logarithms of its
    stride, its width and its intensity (equation 21), all within bounds. At first it covers a `share` of the
    image's longer side, with filters half a stride wide.

    >>> placed = Window(8, 4, (1, 28, 20))(torch.zeros(2, 8))
    >>> placed.side.squeeze(-1), placed.edges()[0]
    (tensor([28., 28.]), tensor([ 0., -4., 28., 24.]))
    """

    def __init__(self, hidden: int, size: int, shape: Sequence[int], share: float = 1.0):
        super().__init__()
        self.size, self.shape, self.longest = size, (shape[-2], shape[-1]), share * max(shape[-2:])
        self.place = nn.Linear(hidden, 5)
        nn.init.normal_(self.place.weight, std=0.01)
        nn.init.zeros_(self.place.bias)

    def forward(self, state: Tensor) -> Placed:
        centre, scales = self.place(state).float().split((2, 3), -1)
        centre, scales = centre.tanh(), LARGEST * (scales / LARGEST).tanh()
        stride, width, gain = scales.exp().split(1, -1)
        side = self.longest * stride
        stride = side / self.size * (2 / side.new_tensor(self.shape))  # of a pixel's: as many pixels down as across
        filters = rg.GaussianGrid(centre, stride, stride * width / 2, self.size, self.shape)
        return Placed(filters, side, scales[..., :2], gain[..., None, None])


class Attentive(nn.Module):
    """Reads the image and what the canvas lacks of it, and writes on the canvas, each through a window."""

    def __init__(self, config: Any, shape: Sequence[int]):
        super().__init__()
        self.reading = Window(config.hidden, config.read, shape)
        self.writing = Window(config.hidden, config.write, shape)
        self.see = nn.Linear(2 * shape[0] * config.read**2, 4 * config.hidden)
        self.patch = nn.Linear(config.hidden, shape[0] * config.write**2)

    def prepare(self, images: Tensor) -> Tensor:
        """Nothing that does not change from step to step."""
        return images

    def read(self, images: Tensor, painted: Tensor, hidden: Tensor) -> tuple[Tensor, Placed]:
        """What drives the encoder (B, 4 H), and the window."""
        window = self.reading(hidden)
        patches = window.read(torch.cat((images, images - painted), 1))
        return self.see(patches.flatten(1)), window

    def write(self, hidden: Tensor) -> tuple[Tensor, Placed]:
        """What is added to the canvas (B, C, Y, X), and the window."""
        window = self.writing(hidden)
        return window.write(self.patch(hidden).unflatten(-1, (-1, *2 * [window.filters.size]))), window


class Whole(nn.Module):
    """Reads and writes everything (equations 17 and 18). The image's part in what is read is the same in all steps."""

    def __init__(self, config: Any, shape: Sequence[int]):
        super().__init__()
        self.shape, pixels = shape, torch.Size(shape).numel()
        self.see, self.paint = nn.Linear(2 * pixels, 4 * config.hidden), nn.Linear(config.hidden, pixels)

    def prepare(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The product with the image, whether it is seen as it is or less what is painted, and the latter's weights."""
        image, lacking = self.see.weight.chunk(2, -1)
        return linear(images.flatten(1), image + lacking, self.see.bias), lacking

    def read(self, seen: tuple[Tensor, Tensor], painted: Tensor, hidden: Tensor) -> tuple[Tensor, None]:
        """What drives the encoder (B, 4 H)."""
        image, lacking = seen
        return image - linear(painted.flatten(1), lacking), None

    def write(self, hidden: Tensor) -> tuple[Tensor, None]:
        """What is added to the canvas (B, C, Y, X)."""
        return self.paint(hidden).unflatten(-1, self.shape), None


class State(NamedTuple):
    """Of an LSTM, each (B, H)."""

    hidden: Tensor
    cell: Tensor


def lstm(gates: Tensor, cell: Tensor) -> State:
    """The next state of an LSTM from the sums (B, 4 H) at its input, forget and output gates and at its candidate.

    >>> lstm(torch.zeros(1, 4), torch.ones(1, 1)).cell
    tensor([[0.5000]])
    """
    size = cell.shape[-1]
    let_in, keep, let_out = gates[:, : 3 * size].sigmoid().chunk(3, -1)
    cell = keep * cell + let_in * gates[:, 3 * size :].tanh()
    return State(let_out * cell.tanh(), cell)
