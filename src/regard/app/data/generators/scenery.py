"""Pictures that are made up: clouds of colour, cut by clouds of another colour, so that they have both grain and edges.

The spectrum of a cloud falls as that of photographs does, its amplitude by 1/f^1.2 with the frequency f (Field 1987,
"Relations between the statistics of natural images and the response properties of cortical cells", section 4).
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

FALLS = 1.2
"""The power of the frequency by which an amplitude falls."""
LAYERS = 8
"""Clouds that lie above each other."""


def scenery(side: int, generator: torch.Generator) -> UInt8[Tensor, "3 side side"]:
    """A picture of side x side pixels.

    >>> scenery(64, torch.Generator().manual_seed(0)).shape
    torch.Size([3, 64, 64])
    """
    picture = _cloud(3, side, generator)
    for _ in range(LAYERS):
        shape, colour = _cloud(1, side, generator), torch.randn(3, 1, 1, generator=generator)
        grain = torch.rand(1, generator=generator) * _cloud(3, side, generator)
        picture = torch.where(shape > 0.8, colour + grain, picture)
    return (picture * 40 + 128).clamp(0, 255).to(torch.uint8)


def _cloud(channels: int, side: int, generator: torch.Generator) -> Float[Tensor, "channels side side"]:
    """Noise whose amplitudes fall with the frequency, of mean zero and deviation one; its channels are alike."""
    noise = torch.randn(channels, side, side, generator=generator)
    noise = (noise + 2 * noise.mean(0)) / 2
    rows, columns = torch.fft.fftfreq(side).view(-1, 1), torch.fft.rfftfreq(side)
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / side)
    found = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency**FALLS, s=(side, side))
    return (found - found.mean()) / found.std()
