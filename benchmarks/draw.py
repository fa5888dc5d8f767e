"""Training images a second of DRAW (Gregor et al. 2015), beside a plain PyTorch loop of the same model.

    regard bench draw

The plain loop is as DRAW is commonly written: two `nn.LSTMCell`, filters made by an exponential that is divided by its
sum for each image that is read and for each axis, a product with them by `bmm`, and Adam as it comes. Before anything
is timed both must get the same loss and the same gradients from the same weights. The limit is the time of the matrix
products of our own step alone: its mm, addmm and bmm calls, forward and backward, recorded while it takes the plain
road, and run again with nothing in between.
"""

from collections.abc import Callable, Iterator
from typing import Any

import harness
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import regard as rg
from regard.app import data as datasets
from regard.app.vision.painting import seen
from regard.app.vision.windows import LARGEST, Window
from regard.recipes import draw as recipe

BATCH = 128
CASES = {"draw, 28x28": ("draw", 28), "draw-without-attention, 28x28": ("draw-without-attention", 28),
         "draw, 60x60": ("draw", 60)}  # fmt: skip


class Filters(nn.Module):
    """A window as it is commonly written."""

    def __init__(self, hidden: int, size: int, side: int):
        super().__init__()
        self.place, self.size, self.side = nn.Linear(hidden, 5), size, side

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """F_y and F_x (B, N, side), the gain and the area of a filter (B, 1, 1)."""
        y, x, stride, width, gain = self.place(hidden).split(1, -1)
        y, x = ((each.tanh() + 1) / 2 * self.side - 0.5 for each in (y, x))
        stride, width, gain = (torch.exp(LARGEST * torch.tanh(each / LARGEST)) for each in (stride, width, gain))
        stride = self.side / self.size * stride
        width = stride * width / 2
        return self.bank(y, stride, width), self.bank(x, stride, width), gain[..., None], stride.square()[..., None]

    def bank(self, centre: Tensor, stride: Tensor, width: Tensor) -> Tensor:
        """The filters of an axis."""
        places = centre + (torch.arange(self.size, dtype=centre.dtype) - (self.size - 1) / 2) * stride  # (B, N)
        pixels = torch.arange(self.side, dtype=centre.dtype)
        filters = torch.exp(-((pixels - places[..., None]) ** 2) / (2 * width[..., None] ** 2))
        return filters / filters.sum(-1, keepdim=True).clamp(min=1e-8)


class Plain(nn.Module):
    """DRAW in a loop over its steps, on grey square images."""

    def __init__(self, config: recipe.Config, side: int):
        super().__init__()
        self.config, self.side, hidden, pixels = config, side, config.hidden, side**2
        self.attends = config.model == "draw"
        seen = 2 * config.read**2 if self.attends else 2 * pixels
        self.encoder = nn.LSTMCell(seen + hidden, hidden)
        self.decoder = nn.LSTMCell(config.latent, hidden)
        self.infer = nn.Linear(hidden, 2 * config.latent)
        self.paint = nn.Linear(hidden, config.write**2 if self.attends else pixels)
        if self.attends:
            self.reading, self.writing = (Filters(hidden, size, side) for size in (config.read, config.write))
        self.canvas, self.start = nn.Parameter(torch.zeros(side, side)), nn.Parameter(torch.zeros(2, hidden))

    def forward(self, images: Tensor) -> Tensor:
        """The bound, a mean over the images (B, 1, side, side)."""
        images, count = images.squeeze(1), len(images)
        canvas, decoder = self.canvas.expand(count, -1, -1), tuple(each.expand(count, -1) for each in self.start)
        encoder = tuple(images.new_zeros(2, count, self.config.hidden))
        divergence = torch.zeros((), dtype=images.dtype)
        for _ in range(self.config.steps):
            lacking = images - torch.sigmoid(canvas)
            encoder = self.encoder(torch.cat([self.read(images, lacking, decoder[0]), decoder[0]], 1), encoder)
            mean, log_width = self.infer(encoder[0]).chunk(2, 1)
            z = mean + torch.exp(log_width) * torch.randn_like(mean)
            divergence = divergence + (mean**2 + torch.exp(log_width) ** 2 - 2 * log_width - 1).sum(1).mean() / 2
            decoder = self.decoder(z, decoder)
            canvas = canvas + self.write(decoder[0])
        return divergence + F.binary_cross_entropy(torch.sigmoid(canvas), images, reduction="none").sum((1, 2)).mean()

    def read(self, images: Tensor, lacking: Tensor, hidden: Tensor) -> Tensor:
        """What is seen of the images and of what the canvas lacks, (B, features)."""
        if not self.attends:
            return torch.cat([images.flatten(1), lacking.flatten(1)], 1)
        rows, columns, gain, _ = self.reading(hidden)
        patches = [torch.bmm(torch.bmm(rows, each), columns.transpose(1, 2)) * gain for each in (images, lacking)]
        return torch.cat([each.flatten(1) for each in patches], 1)

    def write(self, hidden: Tensor) -> Tensor:
        """What is added to the canvas, (B, side, side)."""
        if not self.attends:
            return self.paint(hidden).view(-1, self.side, self.side)
        rows, columns, gain, area = self.writing(hidden)
        patch = self.paint(hidden).view(-1, self.config.write, self.config.write) * gain * area
        return torch.bmm(torch.bmm(rows.transpose(1, 2), patch), columns)

    @torch.no_grad()
    def copy(self, ours: Any) -> None:
        """Takes over our weights."""
        hidden, latent = self.config.hidden, self.config.latent
        order = torch.arange(4 * hidden).view(4, hidden)[[1, 0, 3, 2]].flatten()  # ours keeps first, and makes last
        see, encode, decode = ours.brush.see, ours.encode.weight[order], ours.decode
        self.encoder.weight_ih.copy_(torch.cat((see.weight[order], encode[:, :hidden]), 1))
        self.encoder.weight_hh.copy_(encode[:, hidden:])
        self.encoder.bias_ih.copy_(see.bias[order])
        self.decoder.weight_ih.copy_(decode.weight[order, :latent])
        self.decoder.weight_hh.copy_(decode.weight[order, latent:])
        self.decoder.bias_ih.copy_(decode.bias[order])
        for bias in (self.encoder.bias_hh, self.decoder.bias_hh):
            bias.zero_()
        self.infer.load_state_dict(ours.infer.state_dict())
        self.paint.load_state_dict((ours.brush.patch if self.attends else ours.brush.paint).state_dict())
        self.canvas.copy_(ours.canvas.squeeze(0))
        self.start.copy_(ours.start)
        if self.attends:
            self.reading.place.load_state_dict(ours.brush.reading.place.state_dict())
            self.writing.place.load_state_dict(ours.brush.writing.place.state_dict())


def models(model: str, side: int) -> tuple[recipe.Config, Any, Plain]:
    """Ours and the plain loop, of the same weights."""
    config = recipe.Config(model=model, canvas=side, batch=BATCH)  # pyright: ignore[reportArgumentType]
    splits = recipe.binarised(config, datasets.digits(canvas=side, clutter=0))
    ours: Any = recipe.Model(config, splits)
    plain = Plain(config, side)
    plain.copy(ours)
    return config, ours, plain


def examples(side: int) -> Tensor:
    """Random binary images."""
    return (torch.rand(BATCH, 1, side, side) < 0.2).float()


def check(model: str, side: int) -> None:
    """Both get the same loss, and the same gradients, from the same weights and noise."""
    _, ours, plain = models(model, side)
    for window in (each for each in ours.modules() if isinstance(each, Window)):
        nn.init.normal_(window.place.weight, std=0.1)
    ours, plain, images = ours.double(), plain.double(), examples(side).double()
    plain.copy(ours)
    torch.manual_seed(0)
    noise = torch.randn(ours.config.steps, BATCH, ours.config.latent, dtype=images.dtype)
    losses = [_with(noise, lambda: recipe.loss(ours, {"image": images})[0]), _with(noise, lambda: plain(images))]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)  # the window and the cross-entropy are in float32 in ours
    shared = [(each.infer.weight, each.start, each.canvas) for each in (ours, plain)]
    gradients = [torch.autograd.grad(loss, parts) for loss, parts in zip(losses, shared, strict=True)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine.view_as(theirs), theirs, rtol=1e-4, atol=1e-4)


def _with(noise: Tensor, call: Callable[[], Tensor]) -> Tensor:
    """The loss with this noise (T, B, Z), drawn at once or step by step."""
    steps, randn, like = iter(noise), torch.randn, torch.randn_like
    try:
        torch.randn, torch.randn_like = lambda *_, **__: noise, lambda _: next(steps)
        return call()
    finally:
        torch.randn, torch.randn_like = randn, like


def training(model: nn.Module, loss: Callable[[Tensor], Tensor], side: int, **optimiser: Any) -> harness.Call:
    """One step of training: from a batch of images to the changed weights."""
    adam, images = torch.optim.Adam(model.parameters(), 1e-4, **optimiser), examples(side)

    def step() -> None:
        adam.zero_grad()
        loss(images).backward()
        adam.step()

    return step


class Products(TorchDispatchMode):
    """Records the operands of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default):
            self.operands.append(tuple(each.detach() for each in args[-2:]))
        return func(*args, **(kwargs or {}))


def products(step: harness.Call) -> tuple[harness.Call, float]:
    """The matrix products of a step alone, and their arithmetic in GFLOP; a kernel's are those of the plain road."""
    with rg.plain_road(), Products() as recorded:
        step()

    def multiply() -> None:
        for left, right in recorded.operands:
            torch.matmul(left, right)

    return multiply, sum(2 * left.numel() * right.shape[-1] for left, right in recorded.operands) / 1e9


PEER = "two LSTMCells, filters by an exponential and its sum, bmm for each image; Adam"
LIMIT = "the matrix products of our step by the plain road, forward and backward, run alone"


def measure(rounds: int) -> Iterator[harness.Row]:
    """All rows, after the checks."""
    torch.manual_seed(0)
    for name, (model, side) in CASES.items():
        check(model, side)
        _, ours, plain = models(model, side)
        step = training(ours, lambda images, ours=ours: recipe.loss(ours, {"image": images})[0], side, fused=True)
        bound, gflop = products(step)
        theirs = training(plain, plain, side)
        yield harness.compare(f"a training step, {name}", PEER, step, theirs, bound, LIMIT, BATCH, rounds, gflop)
        if model == "draw":
            yield windows(ours, plain, side, rounds)


def windows(ours: Any, plain: Plain, side: int, rounds: int) -> harness.Row:
    """Reading and writing of one step alone, forward and backward."""
    hidden, images, canvas = torch.randn(BATCH, ours.config.hidden), examples(side), torch.rand(BATCH, 1, side, side)
    hidden.requires_grad_()
    canvas.requires_grad_()

    def mine() -> None:
        read, window = ours.brush.reading(hidden), ours.brush.writing(hidden)
        patches = seen(read, images, canvas)
        written = window.write(ours.brush.patch(hidden).unflatten(-1, (1, *2 * [window.filters.size])))
        (patches.sum() + written.sum()).backward()

    def theirs() -> None:
        seen = plain.read(images.squeeze(1), images.squeeze(1) - canvas.squeeze(1), hidden)
        (seen.sum() + plain.write(hidden).sum()).backward()

    bound, gflop = products(mine)
    return harness.compare(
        f"reading and writing of one step, {side}x{side}", PEER, mine, theirs, bound, LIMIT, BATCH, rounds, gflop
    )


if __name__ == "__main__":
    harness.main("draw", measure)
