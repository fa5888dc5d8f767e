"""What paints: how a network reads an image and writes on a canvas, through windows or whole; its cells, and what its
painting costs.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation", sections 2 and 3; `config` is that of the
recipe draw.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from regard.app.data.splits import Split
from regard.app.vision.windows import Placed, Window


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
        return self.see(seen(window, images, painted).flatten(1)), window

    def write(self, hidden: Tensor) -> tuple[Tensor, Placed]:
        """What is added to the canvas (B, C, Y, X), and the window."""
        window = self.writing(hidden)
        return window.write(self.patch(hidden).unflatten(-1, (-1, *2 * [window.filters.size]))), window


def seen(window: Placed, images: Tensor, painted: Tensor) -> Tensor:
    """The patches (B, 2 C, N, N) of the images and of what is not painted of them. Reading is linear: the difference
    is taken of what is read, and so no gradient of the images is computed, which are last and data."""
    done, patches = window.read(painted, images).chunk(2, 1)
    return torch.cat((patches, patches - done), 1)


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


def first_canvas(split: Split, shape: Sequence[int]) -> Tensor:
    """The logits (C, Y, X) of how often each pixel is on in the first images to learn from; even odds without any."""
    count = min(1000, len(split))
    if not count:
        return torch.zeros(*shape)
    images = split.batch(torch.arange(count), torch.Generator().manual_seed(0))["image"]
    return ((images.sum(0) + 1) / (count + 2)).logit()


def reconstruction(logits: Tensor, images: Tensor) -> Tensor:
    """The cross-entropy (B,) of binary images (B, C, Y, X), the sum over their pixels."""
    return binary_cross_entropy_with_logits(logits.float(), images, reduction="none").flatten(1).sum(-1)


def divergence(posteriors: Tensor) -> Tensor:
    """Of Gaussians from the standard one (equation 10), (B, T), given their means and the logarithms of their widths
    (B, T, 2 Z).

    >>> divergence(torch.zeros(2, 3, 8)).sum()
    tensor(0.)
    """
    mean, log_width = posteriors.float().chunk(2, -1)
    return (mean.square() + (2 * log_width).exp() - 2 * log_width - 1).sum(-1) / 2


def layers(inputs: int, units: int, outputs: int) -> nn.Sequential:
    """A network of two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, outputs)
    )
