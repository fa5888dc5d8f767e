"""What looks at images: the eye that encodes a glimpse, the policies that choose where the next one is, and the ways to
look, hard, soft, and through a window of Gaussian filters.

Mnih et al. 2014, "Recurrent Models of Visual Attention", section 3; `config` is that of the recipe glimpse.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

import regard as rg
from regard.app.vision.convolutional import Block
from regard.app.vision.windows import Placed, Window


class Eye(nn.Module):
    """What was seen and where, g = relu(W_what patches + W_where location + b) (section 3.1), the patches perhaps
    through a convolution that all scales share."""

    def __init__(self, shape: tuple[int, int, int], filters: int, hidden: int, where: int = 2):
        super().__init__()
        scales, channels, size = shape
        self.filters = nn.Conv2d(channels, filters, 5, padding=2) if filters else None
        values = filters * (size // 2) ** 2 if filters else channels * size**2
        self.what = nn.Linear(scales * values, hidden)
        self.where = nn.Linear(where, hidden, bias=False)

    def forward(self, patches: Tensor, location: Tensor) -> Tensor:
        if self.filters is not None:
            each = patches.flatten(0, -4).contiguous(memory_format=torch.channels_last)  # (*S B scales, C, size, size)
            found = max_pool2d(self.filters(each), 2).relu()
            patches = found.permute(0, 2, 3, 1).reshape(*patches.shape[:-3], *found.shape[2:], -1)
        return (self.what(patches.flatten(-4)) + self.where(location)).relu()  # (*S, B, hidden)


class ResidualEye(nn.Module):
    """What was seen of photographs and where: as an `Eye`, but each scale through a residual network of two blocks,
    of which the mean over its places is taken: fewer weights than one layer that knows every place."""

    def __init__(self, shape: tuple[int, int, int], filters: int, hidden: int, where: int = 2):
        super().__init__()
        scales, channels, _ = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, filters, 3, padding=1, bias=False),
            Block(filters, 2 * filters, 2),
            Block(2 * filters, 4 * filters, 2),
            nn.BatchNorm2d(4 * filters),
            nn.ReLU(),
        )
        self.what = nn.Linear(scales * 4 * filters, hidden)
        self.where = nn.Linear(where, hidden, bias=False)

    def forward(self, patches: Tensor, location: Tensor) -> Tensor:
        each = patches.flatten(0, -4).contiguous(memory_format=torch.channels_last)  # (*S B scales, C, size, size)
        found = self.layers(each).mean((2, 3)).reshape(*patches.shape[:-4], -1)
        return (self.what(found) + self.where(location)).relu()  # (*S, B, hidden)


class Scene(NamedTuple):
    """Images that an eye can look at: reading a location gives the encoded glimpse, and its patches are counted."""

    sensor: Any
    eye: Eye | ResidualEye

    def read(self, z: Tensor) -> Tensor:
        """The glimpses at the locations (*S, B, N), as (*S, B, hidden)."""
        return self.eye(self.sensor.read(z), z)


class State(NamedTuple):
    """What is known after a glimpse: the core's memory and the glimpse, (S, B, hidden), where it was, (S, B, N), and
    how many there have been, (S, B)."""

    memory: Tensor
    glimpse: Tensor
    location: Tensor
    count: Tensor

    def detach(self) -> "State":
        """The same without a gradient to what it is known by."""
        return State(*(each.detach() for each in self))


class Moves(nn.Module):
    """The policy of hard attention: a Gaussian whose centre a small network of what is known moves or places. It has as
    many coordinates as there are numbers: y, x, and perhaps how far to zoom."""

    width: Tensor

    def __init__(self, config: Any, steps: int, numbers: int = 2):
        super().__init__()
        self.locations, self.trains_core = config.locations, config.policy_trains_core
        scan = pad(config.scan * spread(config.glimpses), (0, numbers - 2))
        self.scan = nn.Parameter(scan) if config.locations == "scanned" else None
        self.memory, self.glimpse = nn.Linear(config.hidden, 128), nn.Linear(config.hidden, 128, bias=False)
        self.move = nn.Linear(128, numbers)
        nn.init.normal_(self.move.weight, std=0.01)
        nn.init.zeros_(self.move.bias)
        self.register_buffer("width", torch.tensor(config.width))
        self.narrowing = (config.final_width / config.width) ** (1 / steps)

    def forward(self, state: State) -> rg.Coordinate:
        move = self.move(self.known(state)).float()
        if self.scan is not None:
            return rg.Coordinate(self.scan[state.count] + move, self.width)
        return rg.Coordinate(state.location + move if self.locations == "moved" else move.tanh(), self.width)

    def known(self, state: State) -> Tensor:
        """What the move is a linear function of, (*S, B, 128)."""
        state = state if self.trains_core else state.detach()
        return (self.memory(state.memory) + self.glimpse(state.glimpse)).relu()

    def narrow(self) -> None:
        """Makes the draws of the next step a little less wide."""
        self.width.mul_(self.narrowing)


def spread(count: int) -> Tensor:
    """So many locations, (count, 2), spread evenly over the image, row by row.

    >>> spread(4).tolist()
    [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    """
    rows = math.ceil(math.sqrt(count))
    columns = math.ceil(count / rows)
    lines = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in (rows, columns)]
    return torch.cartesian_prod(*lines)[:count]


class Blind(nn.Module):
    """A policy that knows nothing: all locations alike; its mode is the middle of the image."""

    def forward(self, state: State) -> rg.Coordinate:
        return rg.Coordinate(torch.zeros_like(state.location), width=1e3)


class Hard(nn.Module):
    """Looks at one location a step: a policy and a read."""

    def __init__(self, policy: nn.Module, read: Any):
        super().__init__()
        self.policy, self.read = policy, read

    def prepare(self, scene: Scene, batch: int) -> None:
        """Nothing: what is not looked at is not read."""

    def forward(self, state: State, scene: Scene, memory: None) -> rg.Attended:
        """A glimpse, encoded. The log-probability and its gradient are computed for all glimpses at once, later."""
        return rg.look(state, torch.no_grad()(self.policy.forward), scene, self.read, self.training)

    def looked(self, out: rg.Attended) -> tuple[Tensor, Tensor]:
        """The locations (1, B, N) of a glimpse, and their shares (1, B)."""
        return out.z, torch.ones_like(out.z[..., 0])


class Zoomed:
    """A sensor whose locations have a third coordinate, how far to zoom: of the scales it reads the one that this
    names, at a fifth (1 / ZOOM) the finest and at minus a fifth the coarsest, so that a draw that is narrow as places
    go is wide as scales go."""

    ZOOM = 5.0

    def __init__(self, glimpses: rg.Glimpses):
        self.glimpses = glimpses

    @property
    def pixels(self) -> int:
        """How many values were read."""
        return self.glimpses.pixels

    def read(self, z: Tensor) -> Tensor:
        """The patches (*S, B, 1, C, size, size) at the locations (*S, B, 3)."""
        return self.glimpses.read(z[..., :2], self.scale(z))

    def scale(self, z: Tensor) -> Tensor:
        """Which scale a location names, (*S, B)."""
        last = self.glimpses.scales - 1
        return ((1 - self.ZOOM * z[..., 2]) / 2 * last).clamp(0, last).round().long()

    def select(self, rows: Tensor) -> "Zoomed":
        """The sensor of some of the images; what it reads it counts by itself."""
        return Zoomed(self.glimpses.select(rows))


class Soft(nn.Module):
    """Looks at all glimpses of a grid at every step, and reads their weighted mean."""

    places: Tensor

    def __init__(self, hidden: int, places: Tensor):
        super().__init__()
        self.attention = rg.Attention(score=rg.Additive(hidden, hidden, 128), over=rg.softmax, read=rg.mean)
        self.register_buffer("places", places)  # (G, 2)

    def prepare(self, scene: Scene, batch: int) -> rg.Memory:
        """The glimpses of the grid, all of them read."""
        glimpses = scene.read(self.places.unsqueeze(1).expand(-1, batch, 2)).transpose(0, 1)
        return self.attention.prepare(glimpses, glimpses)  # (B, G, hidden)

    def forward(self, state: State, scene: Scene, memory: rg.Memory) -> rg.Attended:
        out = self.attention(state.memory.transpose(0, 1), memory)  # the S paths are queries
        out.context = out.context.transpose(0, 1)  # (S, B, hidden)
        return out

    def looked(self, out: rg.Attended) -> tuple[Tensor, Tensor]:
        """The locations (G, 1, 2) of a glimpse, and their shares (G, B)."""
        return self.places.unsqueeze(1), out.weights.squeeze(1).T


class Filtered:
    """A sensor that reads images through windows of Gaussian filters. Each read takes all pixels, and is so counted."""

    def __init__(self, images: Tensor):
        self.images, self.pixels = images, 0

    def read(self, window: Placed) -> Tensor:
        """The patches (S, B, 1, C, N, N) that are seen through a window (S, B)."""
        self.pixels += window.side.shape[0] * self.images.numel()
        return window.read(self.images).unsqueeze(-4)

    def select(self, rows: Tensor) -> "Filtered":
        """The sensor of some of the images; what it reads it counts by itself."""
        return Filtered(self.images[rows])


class Through(nn.Module):
    """Looks through a window at every step, which the memory places, spaces and sharpens: DRAW's read (Gregor et al.
    2015, section 3.2). It is linear in the image and smooth in where it looks, so that backpropagation trains it all.

    At first it reaches over half of the image: over all of it, too little is seen for it to learn where to go.
    """

    def __init__(self, hidden: int, size: int, shape: Sequence[int]):
        super().__init__()
        self.policy = Window(hidden, size, shape, share=0.5)

    def prepare(self, scene: Scene, batch: int) -> None:
        """Nothing: the window differs from step to step."""

    def forward(self, state: State, scene: Scene, memory: None) -> rg.Attended:
        """A glimpse, encoded, with where the window was, and the logarithms of its stride and its width."""
        window = self.policy(state.memory)
        where = torch.cat((window.filters.centre, window.scales), -1)
        return rg.Attended(scene.eye(scene.sensor.read(window), where), None, None, formed=window.filters)

    def looked(self, out: rg.Attended) -> tuple[Tensor, Tensor]:
        """The locations (Y X, 1, 2) of the pixels, and their shares (Y X, B) in what all filters read together."""
        window: Any = out.positions
        rows, columns = (each.mean(-2)[0] for each in window.filters)  # (B, Y), (B, X)
        lines = [(torch.arange(each.shape[-1]) * 2 + 1) / each.shape[-1] - 1 for each in (rows, columns)]
        shares = rows.unsqueeze(-1) * columns.unsqueeze(-2)  # (B, Y, X)
        return torch.cartesian_prod(*lines).unsqueeze(1).to(rows), shares.flatten(1).T


class Drawn:
    """`hard`, but without the log-probability, which is asked of all draws together."""

    def at(self, step: rg.Step) -> Any:
        return _draw if step.training else _likeliest


def _draw(positions: rg.Positions, scene: Scene) -> tuple[Tensor, Tensor, None]:
    z = positions.sample()
    return positions.gather(scene, z), z, None


def _likeliest(positions: rg.Positions, scene: Scene) -> tuple[Tensor, Tensor, None]:
    z = positions.mode
    return positions.gather(scene, z), z, None


def as_computed(images: Tensor) -> Tensor:
    """In the type that products are computed in: autocast lowers it, and the pyramid is then read in that."""
    kind = images.device.type
    return images.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else images
