"""Networks that read every pixel, and what puts the pictures of a data set on one footing."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.app.data.folder import Pictures

LOOKED_AT = 10_000_000
"""Values of pictures, at most, of which the mean and the deviation are taken."""
LARGEST = 48
"""Pixels each way from which on a picture is first made smaller."""


class Standard(nn.Module):
    """Pictures less the mean of their data set, by its standard deviation, each colour by itself."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, split: Pictures):
        super().__init__()
        channels, height, width = split.pixels.shape
        mean, deviation = torch.zeros(channels), torch.ones(channels)
        if len(split):
            count = min(len(split), max(1, LOOKED_AT // (channels * height * width)))
            images = split.batch(torch.linspace(0, len(split) - 1, count).long())["image"]
            mean, deviation = images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp(min=1 / 255)
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("deviation", deviation.view(-1, 1, 1))

    def forward(self, images: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        return (images - self.mean) / self.deviation


class Block(nn.Module):
    """Two convolutions beside which what comes in passes on: x + F(x), each after a normalisation and a ReLU (He et al.
    2016, "Identity mappings in deep residual networks", figure 1 b); where the picture becomes smaller, what passes on
    is the mean of neighbours (He et al. 2019, "Bag of tricks", section 4.2, ResNet-D)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.inner = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.outer = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        mean = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        wider = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.beside = nn.Sequential(mean, wider)

    def forward(self, x: Float[Tensor, "B C y x"]) -> Float[Tensor, "B D v u"]:
        return self.beside(x) + self.outer(self.second(self.inner(self.first(x).relu())).relu())


class Residual(nn.Module):
    """A residual network of three blocks, of `width` filters and twice and four times as many, on pictures (B, C, Y, X)
    that are first made smaller by convolutions of stride two while they are large: (B, 4 width)."""

    def __init__(self, shape: tuple[int, ...], width: int = 16):
        super().__init__()
        channels, *sides = shape
        layers: list[nn.Module] = []
        while max(sides) > LARGEST:
            layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels, sides = width, [(side + 1) // 2 for side in sides]
        layers.append(nn.Conv2d(channels, width, 3, 1, 1, bias=False))
        blocks = [Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)]
        self.layers = nn.Sequential(*layers, *blocks, nn.BatchNorm2d(4 * width), nn.ReLU())
        self.size = 4 * width

    def forward(self, images: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D"]:
        return self.layers(images.contiguous(memory_format=torch.channels_last)).mean((2, 3))


class Small(nn.Sequential):
    """A network of three convolutions on images (B, C, Y, X) of which the largest answers are taken: (B, 128)."""

    def __init__(self, channels: int):
        layers: list[nn.Module] = []
        for wider, kernel in ((16, 5), (32, 3), (64, 3)):
            layers += [nn.Conv2d(channels, wider, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
            channels = wider
        super().__init__(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 128), nn.ReLU())
        self.size = 128
