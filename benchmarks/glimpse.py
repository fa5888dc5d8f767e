"""Training images a second of recurrent visual attention (Mnih et al. 2014), beside code that slices image by image.

    regard bench glimpse

Both sides train one network with one loss; only how they read glimpses and how they draw locations differs. Before
anything is timed, they must read the same glimpses, and get the same loss and gradients from the same locations.
The limit is the time of the matrix products of our own step alone: its mm and addmm calls, forward and backward,
recorded while it runs and run again with nothing in between.

Then the recipe itself: what several paths for each image cost, in one step or in a step for each.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import harness
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal
from torch.utils._python_dispatch import TorchDispatchMode

import regard as rg
from regard.app.data import Scattered, Splits
from regard.recipes import glimpse as recipe

BATCH = 512
WIDTH = 0.1
"""The standard deviation of the location policy."""


@dataclass(frozen=True)
class Case:
    """What is looked at, and through which glimpses."""

    extent: int
    size: int
    scales: int
    glimpses: int

    def __str__(self) -> str:
        scales = f"{self.scales} scale{'s' * (self.scales > 1)}"
        return f"{self.extent}x{self.extent}, {self.glimpses} glimpses {self.size}x{self.size}, {scales}"


CASES = [Case(28, 8, 1, 6), Case(100, 12, 4, 8)]


class Network(nn.Module):
    """The glimpse, core, location and action networks of Mnih et al. 2014, section 4, and a linear baseline."""

    def __init__(self, case: Case):
        super().__init__()
        self.patch, self.place = nn.Linear(case.scales * case.size**2, 128), nn.Linear(2, 128)
        self.what, self.where = nn.Linear(128, 256), nn.Linear(128, 256, bias=False)
        self.enter, self.keep = nn.Linear(256, 256), nn.Linear(256, 256, bias=False)
        self.locate, self.classify, self.baseline = nn.Linear(256, 2), nn.Linear(256, 10), nn.Linear(256, 1)

    def see(self, patches: Tensor, z: Tensor) -> Tensor:
        """What a glimpse of patches (B, scales, 1, size, size) at z (B, 2) adds to the core, (B, 256)."""
        what = self.what(torch.relu_(self.patch(patches.flatten(1))))
        return self.enter(torch.relu_(what + self.where(torch.relu_(self.place(z)))))

    def centre(self, hidden: Tensor) -> Tensor:
        """The middle of the location policy; its gradient trains the location network alone."""
        return self.locate(hidden.detach()).tanh()  # (*B, 2)

    def policy(self, hidden: Tensor) -> rg.Coordinate:
        """Where to look next."""
        return rg.Coordinate(self.centre(hidden), WIDTH)

    def decide(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropy (B,), and the cost of the policy (B,), 1 for a wrong class."""
        scores = self.classify(hidden)
        return F.cross_entropy(scores, labels, reduction="none"), scores.argmax(-1).ne(labels).to(scores.dtype)


def ours(network: Network, sensor: rg.Glimpses, labels: Tensor, first: Tensor, reads: list) -> Tensor:
    """The loss with regard's parts. The log-probabilities of all locations are computed at once, at the end."""
    hidden, locations = [torch.relu_(network.see(sensor.read(first), first))], []
    for read in reads:
        with torch.no_grad():
            seen = rg.look(hidden[-1], network.policy, sensor, read)
        hidden.append(torch.relu_(network.see(seen.context, seen.z) + network.keep(hidden[-1])))
        locations.append(seen.z)
    loss, cost = network.decide(hidden[-1], labels)
    known = torch.stack(hidden[:-1], 1).detach()  # (B, T - 1, 256)
    baseline = network.baseline(known).squeeze(-1)
    surrogate = rg.reinforce(network.policy(known).log_prob(torch.stack(locations, 1)), cost, baseline)
    return (loss + surrogate + (baseline - cost[:, None]).square().mean(1)).mean()


def plain(network: Network, sensor: "Slices", labels: Tensor, first: Tensor, draws: list) -> Tensor:
    """The loss as it is commonly written by hand (less the value of the surrogate, which is no part of the cost)."""
    hidden, log_probs, baselines = [torch.relu_(network.see(sensor.read(first), first))], [], []
    for draw in draws:
        policy = Normal(network.centre(hidden[-1]), WIDTH)
        z = draw(policy)
        inside = policy.cdf(torch.ones_like(z)) - policy.cdf(-torch.ones_like(z))
        log_probs.append((policy.log_prob(z) - inside.log()).sum(-1))
        baselines.append(network.baseline(hidden[-1].detach()).squeeze(-1))
        hidden.append(torch.relu_(network.see(sensor.read(z), z) + network.keep(hidden[-1])))
    loss, cost = network.decide(hidden[-1], labels)
    baseline = torch.stack(baselines, 1)
    surrogate = ((cost[:, None] - baseline).detach() * torch.stack(log_probs, 1)).sum(1)
    return (loss + surrogate - surrogate.detach() + (baseline - cost[:, None]).square().mean(1)).mean()


def draw(positions: rg.Coordinate, sensor: rg.Glimpses) -> tuple[Tensor, Tensor, None]:
    """A hard read that leaves the log-probability for later."""
    return given(positions.sample())(positions, sensor)


def given(z: Tensor) -> Callable:
    """A read that looks at z whatever the policy says."""
    return lambda positions, sensor: (positions.gather(sensor, z), z, None)


def draw_inside(policy: Normal) -> Tensor:
    """A draw from a Gaussian truncated to [-1, 1], by the inverse of its distribution function."""
    low, high = (policy.cdf(torch.full_like(policy.loc, edge)) for edge in (-1.0, 1.0))
    return policy.icdf(low + torch.rand_like(low) * (high - low)).detach().clamp(-1, 1)


@dataclass(frozen=True)
class Slices:
    """Glimpses as they are commonly cut: for each scale all images are padded, then sliced one by one and pooled."""

    images: Tensor
    size: int
    scales: int

    def read(self, z: Tensor) -> Tensor:
        return torch.stack([self.patches(z, 2**scale) for scale in range(self.scales)], 1)

    def patches(self, z: Tensor, factor: int) -> Tensor:
        """One scale of it, (B, C, size, size)."""
        width = self.size * factor
        padded = F.pad(self.images, (width,) * 4)
        middle = (z + 1) / 2 * torch.tensor(self.images.shape[-2:]) / factor
        first = (middle - self.size / 2 + 0.5).floor().long() * factor + width
        last = first + width
        cut = [padded[i, :, first[i, 0] : last[i, 0], first[i, 1] : last[i, 1]] for i in range(len(padded))]
        return F.avg_pool2d(torch.stack(cut), factor)


def check(case: Case) -> None:
    """Both sides read the same glimpses, and get the same loss and gradients from the same locations."""
    images, labels = examples(case)
    locations = torch.rand(case.glimpses, BATCH, 2, dtype=images.dtype) * 2 - 1
    sensors: list[Any] = [kind(images, case.size, case.scales) for kind in (rg.Glimpses, Slices)]
    for z in locations:
        torch.testing.assert_close(*(sensor.read(z) for sensor in sensors), rtol=0, atol=0)
    network, (first, *rest) = Network(case).to(images.dtype), locations
    losses = [
        ours(network, sensors[0], labels, first, [given(z) for z in rest]),
        plain(network, sensors[1], labels, first, [lambda _, z=z: z for z in rest]),
    ]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(loss, list(network.parameters())) for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def examples(case: Case) -> tuple[Tensor, Tensor]:
    """Random images, whose pooled pixels are exact in floating point, and labels."""
    images = torch.randint(256, (BATCH, 1, case.extent, case.extent), dtype=torch.float64) / 256
    return images, torch.randint(10, (BATCH,))


def training(case: Case, sensor: Callable, loss: Callable, look: Callable, **optimiser) -> harness.Call:
    """One step of training: from a batch of images to the changed weights."""
    network, (images, labels) = Network(case), examples(case)
    adam, images = torch.optim.Adam(network.parameters(), 1e-4, **optimiser), images.float()

    def step() -> None:
        first = torch.rand(BATCH, 2) * 2 - 1
        adam.zero_grad()
        looks = [look] * (case.glimpses - 1)
        loss(network, sensor(images, case.size, case.scales), labels, first, looks).backward()
        adam.step()

    return step


class Products(TorchDispatchMode):
    """Records the operands of the matrix products that are computed inside it."""

    def __init__(self):
        super().__init__()
        self.operands: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            left, right = (each.detach().clone() for each in args[-2:])
            self.operands.append((left, right))
        return func(*args, **(kwargs or {}))


def products(step: harness.Call) -> tuple[harness.Call, float]:
    """The matrix products of a step alone, and their arithmetic in GFLOP."""
    with Products() as seen:
        step()
    jobs = [(left, right, left @ right) for left, right in seen.operands]

    def multiply() -> None:
        for left, right, out in jobs:
            torch.mm(left, right, out=out)

    return multiply, sum(2 * left.numel() * right.shape[1] for left, right, _ in jobs) / 1e9


def measure(rounds: int) -> Iterator[harness.Row]:
    """All rows, after the checks."""
    torch.manual_seed(0)
    for case in CASES:
        check(case)
        step = training(case, rg.Glimpses, ours, draw, fused=True)
        yield train(f"training, {case}", case, step, products(step), rounds)
        if can_compile():
            compiled = torch.compile(ours, fullgraph=True, dynamic=False)
            faster = training(case, rg.Glimpses, compiled, draw, fused=True)
            yield train(f"the same by torch.compile, {case}", case, faster, products(step), rounds)
        yield read(case, rounds)
        yield paths(case, rounds)


def can_compile() -> bool:
    """Whether there is a C++ compiler for torch.compile."""
    return any(map(shutil.which, ("c++", "g++", "clang++")))


def train(name: str, case: Case, step: harness.Call, bound: tuple[harness.Call, float], rounds: int) -> harness.Row:
    """One step of training."""
    theirs = training(case, Slices, plain, draw_inside)
    peer = "at every glimpse all images are padded, then sliced in a Python loop; torch.distributions; Adam"
    limit = "the matrix products of our step, forward and backward, run alone"
    return harness.compare(name, peer, step, theirs, bound[0], limit, BATCH, rounds, bound[1])


def read(case: Case, rounds: int) -> harness.Row:
    """One glimpse of each image, the pyramid being there."""
    images, z = examples(case)[0].float(), torch.rand(BATCH, 2) * 2 - 1
    ours, theirs = (partial(kind(images, case.size, case.scales).read, z) for kind in (rg.Glimpses, Slices))
    peer, limit = "all images are padded, then sliced in a Python loop", "copying as many values as are read"
    return harness.compare(f"one glimpse of {case}", peer, ours, theirs, ours().clone, limit, BATCH, rounds)


def paths(case: Case, rounds: int, draws: int = 4) -> harness.Row:
    """A step of the recipe with several paths for each image, BATCH in all; the peer is as many steps of one path."""
    images, labels = (each[: BATCH // draws] for each in examples(case))
    batch = {"image": images.float(), "label": labels}

    def training(draws: int) -> harness.Call:
        config = recipe.Config(
            size=case.size, scales=case.scales, glimpses=case.glimpses, draws=draws, batch=len(images)
        )
        split = Scattered(images[:, 0].byte(), labels, canvas=case.extent, clutter=0)
        model = recipe.Model(config, Splits(split, split, split, "", tuple("0123456789"), tuple(images.shape[1:])))
        adam, _ = recipe.optimiser(model, config, 1000)

        def step() -> None:
            adam.zero_grad()
            recipe.loss(model, batch)[0].backward()
            adam.step()

        return step

    once, each = training(draws), training(1)
    name = f"{draws} paths an image in one step of the recipe, {case}"
    peer, limit = f"{draws} steps of one path", "the matrix products of our step, forward and backward, run alone"
    bound, gflop = products(once)
    return harness.compare(
        name, peer, once, lambda: [each() for _ in range(draws)], bound, limit, len(images), rounds, gflop
    )


if __name__ == "__main__":
    harness.main("glimpse", measure)
