"""Binarised images: every pixel is drawn, on with the probability that is its brightness."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.app.data.splits import Split


class Binarised:
    """A split whose images are drawn: each value of a pixel is 1 with the probability that is its brightness, else 0.

    With `seed=None` they are drawn afresh for every batch, with the generator that it is given. With a seed an image is
    drawn from the seed and its index, so that every model sees the same ones in whatever batches it asks for them.

    >>> from regard.app.data import digits
    >>> test = Binarised(digits(canvas=28, clutter=0).test, seed=0)
    >>> image = test.batch(torch.tensor([5, 9]))["image"]
    >>> image.unique(), (image[1] == test.batch(torch.tensor([9]))["image"][0]).all()
    (tensor([0., 1.]), tensor(True))
    """

    def __init__(self, split: Split, seed: int | None = None):
        self.split, self.seed = split, seed

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The examples at `indices`, their images (B, C, Y, X) of zeros and ones."""
        batch = self.split.batch(indices, generator)
        level = self._levels(batch["image"].shape, indices, generator)
        return batch | {"image": (level < batch["image"]).float()}

    def _levels(self, shape: torch.Size, indices: Tensor, generator: torch.Generator | None) -> Float[Tensor, "*image"]:
        """What the brightness of each pixel must exceed."""
        if self.seed is None:
            return torch.rand(shape, generator=generator)
        return torch.stack([drawn(shape[1:], self.seed, index) for index in indices.tolist()])


def drawn(shape: torch.Size, seed: int, index: int = 0) -> Float[Tensor, "*image"]:
    """Uniform numbers of the image with that index."""
    number = (seed * 1_000_003 + index) % 2**32  # as many bits as the generator makes use of
    return torch.rand(shape, generator=torch.Generator().manual_seed(number))
