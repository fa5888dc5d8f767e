"""Digits that are turned, sheared, stretched, moved and bent a little: more of them to learn from than there are."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

TURN, SHEAR, STRETCH, MOVE = math.radians(10), 0.1, 0.1, 0.07
"""The most, at an amount of 1: radians, tangent, shares of the height and width, shares of half of them."""
BEND, KNOTS = 0.05, 5
"""The standard deviation, at a bend of 1, of how far a knot is moved, in halves of the image; and knots on a side."""


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
    most = amount * torch.tensor([TURN, SHEAR, STRETCH, STRETCH, MOVE, MOVE])
    turn, shear, high, wide, down, right = ((2 * torch.rand(len(images), 6, generator=generator) - 1) * most).unbind(1)
    cos, sin = turn.cos(), turn.sin()
    first = torch.stack(((1 + wide) * cos, shear - sin, right), 1)
    second = torch.stack((sin, (1 + high) * cos, down), 1)
    grid = F.affine_grid(torch.stack((first, second), 1), [len(images), 1, *images.shape[1:]], align_corners=False)
    if bend:
        knots = bend * BEND * torch.randn(len(images), 2, KNOTS, KNOTS, generator=generator)
        grid = grid + F.interpolate(knots, images.shape[1:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    warped = F.grid_sample(images.unsqueeze(1).float(), grid, align_corners=False)
    return warped.squeeze(1).round().byte()
