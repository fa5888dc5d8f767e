"""Pictures as a grid of places, each with a vector of what is there: for attention that looks at one, or at all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.app.vision.features import Frozen


class Residual(nn.Module):
    """A 3x3 convolution, normalised and rectified (He et al. 2016, "Deep Residual Learning for Image Recognition",
    figure 2), to which what it read is added where the shapes allow it: (B, C, Y, X) to (B, D, Y / stride, X / stride).
    """

    def __init__(self, channels: int, size: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.convolve = nn.Conv2d(channels, size, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.normalise = nn.BatchNorm2d(size)
        self.adds = channels == size and stride == 1

    def forward(self, pictures: Tensor) -> Tensor:
        found = self.normalise(self.convolve(pictures))
        return (found + pictures if self.adds else found).relu()


class Learned(nn.Module):
    """A convolutional network that is trained with the rest: places of `stride` pixels each way, D numbers each, that
    see about ten times their own width.

    Pictures (B, C, Y, X) in [0, 1] give (B, K, D), row by row. Raises ValueError unless the stride is 4, 8 or 16.

    >>> network = Learned((1, 60, 60), size=64, stride=4)
    >>> network.grid, network(torch.rand(2, 1, 60, 60)).shape
    ((15, 15), torch.Size([2, 225, 64]))
    """

    def __init__(self, shape: tuple[int, ...], size: int, stride: int):
        super().__init__()
        if stride not in (4, 8, 16):
            raise ValueError(f"stride expected 4, 8 or 16 pixels from one place to the next, but got {stride}")
        channels, height, width = shape
        self.grid, self.size = (-(-height // stride), -(-width // stride)), size
        halvings = {4: 2, 8: 3, 16: 4}[stride]
        wider = [*(max(32, size >> n) for n in range(halvings - 1, 0, -1)), size]  # after each halving
        layers = []
        for n, each in enumerate(wider):
            layers.append(Residual(channels, each, stride=2))
            layers += [Residual(each, each, dilation=dilation) for dilation in _DILATIONS[halvings][n]]
            channels = each
        self.layers: Any = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, pictures: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B K D"]:
        found = self.layers((pictures - 0.5).contiguous(memory_format=torch.channels_last))
        return found.flatten(2).mT


_DILATIONS = {2: ((), (1, 2, 1)), 3: ((), (1,), (1, 2)), 4: ((), (1,), (1,), (1, 2))}
"""Of the residual layers after each halving: the wider, the more of its surroundings a place sees."""


class Projected(nn.Module):
    """The features of a network that is not trained (`features`), projected, normalised and rectified: D numbers each.

    Takes what was computed of pictures beforehand, (B, K, F), or pictures (B, C, Y, X), which takes long.
    """

    def __init__(self, network: Frozen, size: int):
        super().__init__()
        self.grid, self.size = network.grid, size
        self.network = (network,)  # in a tuple, as its weights are not this module's to train or to save
        self.project, self.normalise = nn.Linear(network.size, size), nn.LayerNorm(size)

    def forward(self, pictures: Tensor) -> Float[Tensor, "B K D"]:
        found = pictures if pictures.dim() == 3 else self.network[0].of(pictures)
        return self.normalise(self.project(found)).relu()


def moved(pictures: Float[Tensor, "B C Y X"], amount: float) -> Float[Tensor, "B C Y X"]:
    """Each picture moved by up to `amount` of its height and width, and made larger or smaller by up to as much, by
    chance; what comes into view is as the edge.

    >>> picture = torch.rand(1, 3, 8, 8)
    >>> torch.allclose(moved(picture, 0.0), picture, atol=1e-5)
    True
    """
    count = len(pictures)
    maps = torch.zeros(count, 2, 3, device=pictures.device)
    maps[:, 0, 0] = maps[:, 1, 1] = 1 + amount * (2 * torch.rand(count, device=pictures.device) - 1)
    maps[:, :, 2] = 2 * amount * (2 * torch.rand(count, 2, device=pictures.device) - 1)
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def boxes_of(grid: tuple[int, int], sides: Sequence[int]) -> Float[Tensor, "K 4"]:
    """The edges y0, x0, y1, x1 in pixels of the places of a grid (rows, columns) over pictures of these sides.

    >>> boxes_of((1, 2), (8, 8))
    tensor([[0., 0., 8., 4.],
            [0., 4., 8., 8.]])
    """
    steps = torch.tensor(sides) / torch.tensor(grid)
    corner = torch.cartesian_prod(*(torch.arange(count) for count in grid))
    return torch.cat((corner * steps, (corner + 1) * steps), -1)


def overlap(boxes: Float[Tensor, "*B 4"], others: Float[Tensor, "*B 4"]) -> Bool[Tensor, "*B"]:
    """Whether each box has a part in common with the other; none has with NaN.

    >>> overlap(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[3.0, 3.0, 9.0, 9.0]]))
    tensor([True])
    """
    (low, high), (other_low, other_high) = boxes.split(2, -1), others.split(2, -1)
    return ((low < other_high) & (other_low < high)).all(-1)


def pointing(
    grid: tuple[int, int],
    batch: Mapping[str, Tensor],
    words: Int[Tensor, "B T"],
    most: Int[Tensor, "B T"],
) -> Float[Tensor, " N"]:
    """Of each word of the captions in a batch that names what is in one of its `boxes`: whether the same word is
    written there, and looks `most` at a place of the grid that overlaps the box."""
    caption, boxes = batch["caption"], batch["boxes"]
    longest = max(words.shape[1], caption.shape[1])
    words, most, caption = (F.pad(each, (0, longest - each.shape[1])) for each in (words, most, caption))
    boxes = F.pad(boxes, (0, 0, 0, longest - boxes.shape[1]), value=torch.nan)
    places = boxes_of(grid, batch["picture"].shape[-2:]).to(boxes)[most]  # (B, T, 4)
    right = (words == caption) & overlap(places, boxes)
    return right[~boxes[..., 0].isnan()].float()
