"""Attention over an image too large to read: where to look is seen from afar, and a few patches are read."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

import regard as rg

BLOCK = 512
"""Patches that go through the network at a time where no gradient is wanted."""
DARK = 1e-3
"""What is added to contrast and brightness before their logarithm."""

BESIDE = 20.0
"""Nats that a place loses if one beside it is likelier."""


class PatchNetwork(nn.Module):
    """What is in a patch: (N, C, size, size) to (N, D), by four convolutions, each normalised in groups, and
    the most that the last one finds of each feature; of length one. `ground` is what there is where nothing is:
    black, or the grey between black and white of photographs, from which all of their colours are told apart sooner."""

    def __init__(self, channels: int, size: int = 64, ground: float = 0.0):
        super().__init__()
        self.ground = ground
        layers = [nn.Conv2d(channels, 16, 5, stride=2, padding=2), nn.GroupNorm(8, 16), nn.ReLU()]
        for before, after in ((16, 32), (32, size)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.GroupNorm(8, after), nn.ReLU()]
        layers += [nn.Conv2d(size, size, 3, padding=1), nn.GroupNorm(8, size), nn.ReLU()]
        self.layers: Any = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, patches: Float[Tensor, "N C size size"]) -> Float[Tensor, "N D"]:
        found = self.layers((patches - self.ground).contiguous(memory_format=torch.channels_last))
        return F.normalize(found.flatten(2).amax(2), dim=-1)


class Prior(nn.Module):
    """Scores of places from the view from afar, (B, C, side, side) to (B, 1, K): all places are alike where there is
    about as much as anywhere, log sigmoid(a (l - max l - b)) of the logarithm l of how much there is under the middle
    of a patch; less where there is more beside them; and what a small convolutional network adds, at first nothing.

    `by` says what there is: the contrast, which is the standard deviation of pixels; their brightness; or nothing, and
    all is learned. A patch covers `patch` pixels of the view, its middle half as many, and there are `grid` x `grid`
    places. The numbers a, b and the weight of what is beside are learned, too. A place that has a likelier one beside
    it is then hardly ever looked at: both would show the same.
    """

    def __init__(self, channels: int, side: int, patch: int, grid: int, by: str):
        super().__init__()
        self.stride, self.by = side // grid, by
        self.middle = max(self.stride, patch // 2)
        self.slope, self.level, self.beside = (nn.Parameter(torch.tensor(each)) for each in (12.0, -0.7, 4.0))
        self.network = nn.Sequential(
            nn.Conv2d(channels + 2, 16, 2 * self.stride, self.stride, padding=(self.stride + 1) // 2),
            nn.GELU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )
        last: Any = self.network[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, view: Float[Tensor, "B C side side"]) -> Float[Tensor, "B 1 K"]:
        line = torch.linspace(-1, 1, view.shape[-1], device=view.device)
        where = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(view.shape[0], -1, -1, -1)
        scores = self.network(torch.cat((view, where), 1))
        if self.by != "learned":
            there = self._there(view)
            most = F.logsigmoid(self.slope * (there - there.amax((2, 3), keepdim=True) - self.level))
            scores = scores + most + self.beside * (there - F.max_pool2d(there, 5, 1, 2))
        beside = scores < F.max_pool2d(scores, 3, 1, 1)
        return (scores - BESIDE * beside).flatten(1).unsqueeze(1)

    def _there(self, view: Tensor) -> Float[Tensor, "B 1 grid grid"]:
        """The logarithm of what there is at each place."""
        more = self.middle - self.stride
        around = F.pad(view, (more // 2, more - more // 2) * 2, mode="replicate")
        mean = F.avg_pool2d(around, self.middle, self.stride)
        if self.by == "brightness":
            return (mean.mean(1, keepdim=True) + DARK).log()
        square = F.avg_pool2d(around.square(), self.middle, self.stride)
        deviation = (square - mean.square()).clamp(min=0).sum(1, keepdim=True)
        return (deviation + DARK**2).log() / 2


class Encoded(NamedTuple):
    """What a network finds in the patches of images at numbered places, which are read when they are asked for."""

    sensor: Any
    """Whose `read` gives windows round locations."""
    places: Float[Tensor, "K 2"]
    """The location of each place."""
    network: Callable[[Tensor], Tensor]

    def read(self, z: Int[Tensor, "B N"]) -> Float[Tensor, "B N V"]:
        """What is found in the patches z of each image."""
        windows = self.sensor.read(self.places[z].transpose(0, 1))  # (N, B, 1, C, size, size)
        found = self.network(windows.flatten(0, 2))
        return found.unflatten(0, (z.shape[1], -1)).transpose(0, 1)

    def in_blocks(self, count: int) -> Float[Tensor, "B K V"]:
        """What is found at all places of so many images, a block of patches after the other; without gradients."""
        step = max(1, BLOCK // count)
        with torch.no_grad():
            blocks = torch.arange(len(self.places)).split(step)
            return torch.cat([self.read(each.expand(count, -1)) for each in blocks], 1)


class Chosen(NamedTuple):
    """Places of each image, and what each counts."""

    z: Int[Tensor, "B N"]
    weights: Float[Tensor, "B N"] | None
    """They sum to one; None where it depends on what is found there."""


def drawn(scores: Float[Tensor, "B 1 K"], count: int) -> Chosen:
    """So many places, drawn without replacement, which on average stand for all."""
    positions = rg.without_replacement(count)(scores)
    z = positions.sample()
    return Chosen(z.squeeze(1), positions.importance(z).squeeze(1))


def likeliest(scores: Float[Tensor, "B 1 K"], count: int) -> Chosen:
    """The so many likeliest places, weighted by their probabilities among themselves."""
    best = scores.squeeze(1).topk(count)
    return Chosen(best.indices, best.values.softmax(-1))


def blindly(scores: Float[Tensor, "B 1 K"], count: int) -> Chosen:
    """So many places, drawn whatever the scores."""
    return drawn(torch.zeros_like(scores), count)


def evenly(scores: Float[Tensor, "B 1 K"], count: int) -> Chosen:
    """So many places, spread over the image, whatever the scores; they lie in as many rows as columns, or one more."""
    images, _, places = scores.shape
    side, rows = math.isqrt(places), math.isqrt(count - 1) + 1 if count > 1 else 1
    number = torch.arange(count)
    row, column = number // rows, number % rows
    columns = torch.bincount(row)[row]
    z = ((row + 0.5) / (int(row[-1]) + 1) * side).long() * side + ((column + 0.5) / columns * side).long()
    return Chosen(z.expand(images, -1), scores.new_full((images, count), 1 / count))


def everywhere(scores: Float[Tensor, "B 1 K"], count: int) -> Chosen:
    """All places, by their probabilities."""
    images, _, places = scores.shape
    return Chosen(torch.arange(places).expand(images, -1), scores.squeeze(1).softmax(-1))


WAYS = {"sampled": drawn, "top-k": likeliest, "random": blindly, "grid": evenly, "all": everywhere}
"""How places are chosen by their scores."""


def ranked(z: Int[Tensor, "B N"], attention: Float[Tensor, "B K"]) -> Int[Tensor, "B N"]:
    """Some of the places of each image, those of most attention first.

    >>> ranked(torch.tensor([[0, 2, 3]]), torch.tensor([[0.1, 0.4, 0.3, 0.2]]))
    tensor([[2, 3, 0]])
    """
    return z.gather(1, attention.gather(1, z).argsort(dim=1, descending=True, stable=True))


class Gated(nn.Module):
    """The score w . (tanh(V h) * sigmoid(U h)) of a key h, whatever the query (Ilse, Tomczak and Welling 2018,
    "Attention-based deep multiple instance learning", equation 9)."""

    def __init__(self, key_dim: int, hidden_dim: int):
        super().__init__()
        self.key, self.gate = nn.Linear(key_dim, hidden_dim), nn.Linear(key_dim, hidden_dim)
        self.energy = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, query: Float[Tensor, "*B Q Dq"], keys: Float[Tensor, "*B K D"]) -> Float[Tensor, "*B Q K"]:
        scores = self.energy(self.key(keys).tanh() * self.gate(keys).sigmoid()).mT
        return scores.expand(*keys.shape[:-2], query.shape[-2], -1)


def centres(count: int) -> Float[Tensor, "K 2"]:
    """The middles of count x count equal squares of an image, as locations (y, x), row by row.

    >>> centres(2).tolist()
    [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    """
    line = (torch.arange(count) + 0.5) / count * 2 - 1
    return torch.cartesian_prod(line, line)
