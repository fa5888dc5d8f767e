"""Fixed places of images as values: attention over patches, of which those that are looked at are read."""

from copy import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.images.glimpses import Glimpses

BLOCK = 1 << 26
"""Bytes that a mean over all places reads at a time."""


class Patches:
    """What a sensor reads at K fixed locations, as values (B, K, V) to attend to by the locations' numbers.

    Hard attention reads the patches that it chose, and no others. A mean reads `block` places at a time, so that all
    of them are never in memory at once, and reads them once more for the gradient.

    Args:
        sensor: of B images.
        locations: (K, 2), such as `grid` gives, or (B, K, 2) where each image has its own.

    Attributes:
        block: how many places a mean reads at a time, as many as take 64 MiB.

    Shapes: places z (*S, B, N) are read as (*S, B, N, V), where V = scales * C * size * size is a glimpse.
    Raises ValueError if the locations have another shape.

    >>> from regard import Glimpses, OneHot, sample
    >>> images = torch.arange(32.0).view(2, 1, 4, 4)
    >>> patches = Patches(Glimpses(images, size=2), torch.tensor([[-0.5, -0.5], [0.5, 0.5]]))
    >>> sample(OneHot(weights=torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])), patches)[0].squeeze(1)
    tensor([[10., 11., 14., 15.],
            [16., 17., 20., 21.]])
    """

    def __init__(self, sensor: Glimpses, locations: Float[Tensor, "*B K 2"]):
        batch, shape = sensor.batch, tuple(locations.shape)
        if shape[-1:] != (2,) or shape[:-2] not in ((), (batch,)) or len(shape) < 2:
            raise ValueError(f"locations expected the shape (K, 2) or ({batch}, K, 2), but got {shape}.")
        self.sensor, self.locations = sensor, locations.expand(batch, -1, 2)  # (B, K, 2)
        glimpse = sensor.scales * sensor.channels * sensor.size**2
        self.block = max(1, BLOCK // (4 * batch * glimpse))

    def read(self, z: Int[Tensor, "*S B N"]) -> Float[Tensor, "*S B N V"]:
        """The glimpses at the places z."""
        rows = torch.arange(self.locations.shape[0], device=z.device)[:, None]
        locations = self.locations.to(z.device)[rows, z].movedim(-2, 0)  # (N, *S, B, 2)
        return self.sensor.read(locations).movedim(0, z.ndim - 1).flatten(z.ndim)

    def select(self, rows: Tensor) -> "Patches":
        """The patches of some of the images, by their indices or a bool mask."""
        few = copy(self)
        few.sensor, few.locations = self.sensor.select(rows), self.locations[rows]
        return few
