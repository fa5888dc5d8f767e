"""Images that are turned, sheared, stretched and moved a little, digits bent too, and pictures coloured and mirrored:
more of them to learn from than there are."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

TURN, SHEAR, STRETCH, MOVE = math.radians(10), 0.1, 0.1, 0.07
"""The most, at an amount of 1: radians, tangent, shares of the height and width, shares of half of them."""
BEND, KNOTS = 0.05, 5
"""The standard deviation, at a bend of 1, of how far a knot is moved, in halves of the image; and knots on a side."""
GAIN, LIGHT = 0.2, 0.1
"""The most, at an amount of 1, by which a colour is strengthened, and by which all are made lighter or darker."""


def jittered(
    images: UInt8[Tensor, "B h w"],
    amount: float = 1.0,
    bend: float = 0.0,
    generator: torch.Generator | None = None,
) -> UInt8[Tensor, "B h w"]:
    """Each image under a random map x -> A x + b + d(x), bilinear, black outside.

    The parts of A and b are uniform up to `amount` times TURN, SHEAR, STRETCH and MOVE; d is smooth, by bicubic
    interpolation between KNOTS x KNOTS normal displacements of `bend` times BEND, an elastic distortion (Simard et al.
    2003, section 2).

    >>> image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    >>> image[0, 10:18, 10:18] = 255
    >>> torch.equal(jittered(image, amount=0.0), image)
    True
    """
    grid = _grid((len(images), 1, *images.shape[1:]), amount, generator)
    if bend:
        knots = bend * BEND * torch.randn(len(images), 2, KNOTS, KNOTS, generator=generator)
        grid = grid + F.interpolate(knots, images.shape[1:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    warped = F.grid_sample(images.unsqueeze(1).float(), grid, align_corners=False)
    return warped.squeeze(1).round().byte()


def varied(
    pictures: Float[Tensor, "B C Y X"],
    amount: float = 1.0,
    flip: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B C Y X"]:
    """Each picture, in [0, 1], under such a map, at its edges as if in a mirror; its colours c become g c + l, where g
    differs by colour, both uniform up to `amount` times GAIN and LIGHT; and with `flip` half of them are mirrored.

    >>> picture = torch.rand(1, 3, 8, 8)
    >>> torch.allclose(varied(picture, amount=0.0), picture, atol=1e-5)
    True
    """
    count, channels = pictures.shape[:2]
    grid = _grid(pictures.shape, amount, generator)
    if flip:
        mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
        grid = torch.where(mirrored, grid * torch.tensor([-1.0, 1.0]), grid)
    warped = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    gain, light = 2 * torch.rand(2, count, channels, 1, 1, generator=generator) - 1
    return (warped * (1 + amount * GAIN * gain) + amount * LIGHT * light[:, :1]).clamp(0, 1)


def _grid(shape: Sequence[int], amount: float, generator: torch.Generator | None) -> Float[Tensor, "B y x 2"]:
    """Where each pixel of images of this shape, (B, C, y, x), is taken from: A x + b."""
    most = amount * torch.tensor([TURN, SHEAR, STRETCH, STRETCH, MOVE, MOVE])
    turn, shear, high, wide, down, right = ((2 * torch.rand(shape[0], 6, generator=generator) - 1) * most).unbind(1)
    cos, sin = turn.cos(), turn.sin()
    first = torch.stack(((1 + wide) * cos, shear - sin, right), 1)
    second = torch.stack((sin, (1 + high) * cos, down), 1)
    return F.affine_grid(torch.stack((first, second), 1), list(shape), align_corners=False)
