"""Classify a digit that lies somewhere on a cluttered canvas by a few glimpses of it: recurrent visual attention.

Mnih et al. 2014, "Recurrent Models of Visual Attention", section 3: at every step a sensor reads a few small patches
around a location, an encoder joins *what* was seen and *where*, a recurrent core remembers, and a classifier answers.
Soft attention reads the mean over a grid of glimpses that covers the image. Hard attention reads one glimpse, at a
location drawn from a Gaussian whose centre a policy moves from glimpse to glimpse; it is trained by `leave_one_out`
over several draws and a learned baseline, with what each glimpse and the answers after it cost in cross-entropy.
Through a grid it reads by a window of Gaussian filters, which the core places and zooms (Gregor et al. 2015, "DRAW",
section 4.1): soft attention, all of it trained by backpropagation. Hard attention with random locations, and with the
middle of the image, is what a learned policy has to beat, and a small convolutional network reads every pixel.

No gradient of the classifier reaches the policy, which sees detached features; no gradient of the policy reaches the
encoder and the core, unless `--policy_trains_core true` asks for it, and none ever the classifier or the baseline.

    regard compare glimpse                      all six side by side
    regard train glimpse --attention hard       one of them: about two minutes on one core

The paper's error with eight glimpses of three scales, after much longer training on 60,000 digits, is 4.04 %.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app import data as datasets
from regard.app import explaining, flags
from regard.app.data.folder import Listing, picture_for
from regard.app.facts import Facts, read_facts
from regard.app.report.report import Look
from regard.app.training.batches import random_state_kept, seed_all
from regard.app.training.schedules import adam, clipped
from regard.app.vision.convolutional import Residual, Small, Standard
from regard.app.vision.networks import (
    Blind,
    Drawn,
    Eye,
    Filtered,
    Hard,
    Moves,
    ResidualEye,
    Scene,
    Soft,
    State,
    Through,
    Zoomed,
    as_computed,
)
from regard.images import grid
from regard.recipes.base import COSTS, ERROR, Measure, Metric, first_paragraph, paths

METRIC = Metric("valid_error", "min", "error on the validation images")

NAMED_BY, QUICK = ("attention",), {"epochs": 1}

COLUMNS = (
    ERROR,
    Measure("test_pixels", 1, "pixels read", "", "Of the image and its pooled versions, as the sensor counts."),
    *COSTS,
    Measure("test_on_digit", 100, "on the digit", "%", "Share of glimpses in its box, from the third on."),
    Measure("test_entropy", 1, "entropy", "nats", "Of the weights, or of a filter, of a glimpse, over all glimpses."),
    Measure(
        "train_signal_to_noise",
        1,
        "signal to noise",
        "",
        "Of the policy's gradient in the last epoch: its mean over a batch, by the standard error of that mean.",
    ),
)

COLLAPSED = 0.005

KINDS = {
    "hard": "Looks at one place at every step, drawn from a distribution that it learned, and reads only that glimpse.",
    "soft": "Weighs a grid of glimpses at every step and reads their weighted mean: it looks everywhere.",
    "grid": "Looks through a window of Gaussian filters at every step, which it places and zooms: soft attention: "
    "the filters reach over the whole image, so that all its pixels are read, and counted, at every glimpse.",
    "random": "The same network as hard, but the places are drawn blindly: what learning where to look has to beat.",
    "fixed": "The same network, but it always looks at the middle of the image.",
    "cnn": "A small convolutional network that reads every pixel.",
}


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the images, their clutter and the draws."""
    data: str = "embedded"
    """embedded (10,000 digits), hub, a folder of MNIST's files, or one of pictures: train/CLASS/*.png, test/CLASS/*."""
    attention: Literal["hard", "soft", "grid", "random", "fixed", "cnn"] = "hard"
    """Where to look; cnn reads every pixel."""
    canvas: int | None = None
    """Height and width of the images in pixels; 60 for digits, for pictures what their sizes suggest, if not given."""
    clutter: int = 4
    """Pieces of other digits on a canvas; pictures have none."""
    jitter: float | None = None
    """How much training images are turned, sheared, stretched and moved, and pictures coloured; 1 is up to 10 degrees
    and tenths; 1 for pictures and 0 for digits, if not given."""
    flip: bool = False
    """Whether half of the training pictures are mirrored."""
    bend: float = 0.0
    """How much the training digits are bent out of shape; 1 is by two thirds of a pixel, as a rule."""
    size: int | None = None
    """Height and width of a patch in pixels, or in filters; a fifth of the image, 32 at the most, if not given."""
    scales: int | None = None
    """Patches of a glimpse, each twice as wide as the one before; as many as reach over two fifths, if not given; a
    grid, which zooms, has one."""
    zoom: bool = False
    """Whether it is also chosen how far to zoom, if one location is read: a glimpse is then one of its patches."""
    glimpses: int = 6
    """Glimpses of an image."""
    filters: int | None = None
    """Filters through which a patch is seen; none if 0. Of pictures they are those of the first layer of a residual
    network, 16 if not given; of digits those of a 5x5 convolution, max-pooled by two, 0 if not given."""
    hidden: int = 256
    """Units of the encoder and of the core."""
    locations: Literal["moved", "placed", "scanned"] = "moved"
    """Whether a location is the last one moved, placed anew (as in the paper), or the next of a scan, moved."""
    scan: float = 0.65
    """How far out the scan begins, which is learned from there; at 1 its grid is spread over the whole image."""
    width: float = 0.1
    """Standard deviation of a drawn location at first; the image is 2 wide."""
    final_width: float = 0.02
    """The same at the last step of training; it narrows by the same factor at each."""
    draws: int = 4
    """Paths drawn for each image in training; one path has no others to compare with, only the learned baseline."""
    credit: Literal["each", "last"] = "each"
    """Whether a glimpse is credited with each answer after it, or with the last one alone."""
    discount: float = 0.5
    """How much a glimpse is credited with what the next one brings."""
    alone: float = 1.0
    """Weight of the answers that each glimpse gives by itself, in the loss and in what the glimpse costs."""
    entropy: float = 0.0
    """Weight of the policy's entropy, in nats a glimpse, which is added to what is learned to keep it high."""
    policy_trains_core: bool = False
    """Whether the policy's gradient also reaches the core and the encoder."""
    epochs: int = 20
    """Passes over the training images, freshly scattered each time."""
    batch: int = 32
    """Images of a step."""
    learning_rate: float = 3e-3
    """The highest, after a tenth of the steps; it then falls to zero by a cosine."""
    policy_rate: float = 0.2
    """The policy's learning rate as a share of that: Adam walks as far on noise as on a signal."""
    clip: float | None = None
    """The norm to which larger gradients are cut, if any."""

    def __post_init__(self) -> None:
        flags.check_training(self, "glimpses", "draws", "hidden")
        flags.above_zero(self, "width", "final_width", *(["clip"] if self.clip is not None else []))


def data(config: Config) -> datasets.Splits:
    """The images, their labels, and the boxes of the digits."""
    return datasets.load(config.data, config.canvas, config.clutter, config.jitter, config.bend, config.flip)


def facts(splits: datasets.Splits) -> Facts:
    """What a model must know of its images: their classes, their shape, and the bits of pictures."""
    bits = splits.train.bits if isinstance(splits.train, datasets.Pictures) else 0
    return Facts(classes=splits.classes, shape=splits.shape, bits=bits)


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No images, but their classes and their shape."""
    facts = read_facts(weights)
    if not facts:  # of weights that were saved without
        return data(config)
    shape = tuple(facts["shape"])
    none = datasets.Pictures(Listing([], torch.zeros(0, dtype=torch.long)), shape, facts["bits"])
    return datasets.Splits(none, none, none, "", tuple(facts["classes"]), shape)


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """Images of the classes and the shape that were learned, to test on."""
    facts = read_facts(weights)
    if not facts:
        return data(config)
    shape, bits = tuple(facts["shape"]), facts["bits"] or None
    return datasets.images_to_test(config.data, facts["classes"], shape, config.clutter, bits)


class Output(NamedTuple):
    """What T glimpses came to."""

    answers: Tensor
    """Logits of the classes after each glimpse, (S, B, T, classes)."""
    alone: Tensor
    """The same from each glimpse by itself, without memory."""
    pixels: int
    """How many values the sensor read."""
    looks: Sequence[rg.Attended] = ()
    """Where each glimpse was."""
    before: State | None = None
    """What was known before each glimpse, (S, B, T, ...)."""


class Recurrent(nn.Module):
    """The eye, the core h = relu(W_h h + W_g g + b) (section 3.1), a classifier, and where to look: one triple."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        channels, height, width = splits.shape
        self.config, self.classes, self.facts = config, splits.classes, facts(splits)
        self.size, self.scales = patches(config, min(height, width))
        hidden, classes = config.hidden, len(splits.classes)
        self.draws = config.draws if config.attention in ("hard", "random") else 1
        self.standard = standard(splits)
        self.zooms = config.zoom and config.attention in ("hard", "random", "fixed")
        self.coordinates = 3 if self.zooms else 2
        each = 1 if self.zooms or config.attention == "grid" else self.scales
        photographs = not isinstance(self.standard, nn.Identity)
        where = 4 if config.attention == "grid" else self.coordinates
        seen = each, channels, self.size
        filters = (16 if photographs else 0) if config.filters is None else config.filters
        self.eye = (ResidualEye if photographs and filters else Eye)(seen, filters, hidden, where)
        self.remember, self.take_in = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden)
        self.classify, self.classify_alone = nn.Linear(hidden, classes), nn.Linear(hidden, classes)
        self.baseline = rg.Learned(2 * hidden, 64) if config.attention == "hard" else None
        steps = max(1, config.epochs * math.ceil(len(splits.train) / config.batch))
        self.attention: Any = {
            "hard": lambda: Hard(Moves(config, steps, self.coordinates), Drawn()),
            "soft": lambda: Soft(hidden, grid(height, width, self.size)),
            "grid": lambda: Through(hidden, self.size, splits.shape),
            "random": lambda: Hard(Blind(), rg.sample),
            "fixed": lambda: Hard(Blind(), rg.mode),
        }[config.attention]()

    def forward(self, images: Tensor) -> Output:
        images = as_computed(images)
        scene, states, looks = self.scene(images), [self.start(images)], []
        memory = self.attention.prepare(scene, images.shape[0])
        for _ in range(self.config.glimpses):
            state, out = self.glimpse(states[-1], scene, memory)
            states.append(state)
            looks.append(out)
        before, after = (State(*map(_each_step, zip(*part, strict=True))) for part in (states[:-1], states[1:]))
        answers, alone = self.classify(after.memory), self.classify_alone(after.glimpse)
        return Output(answers.float(), alone.float(), scene.sensor.pixels, looks, before)

    def scene(self, images: Tensor) -> Scene:
        """The images, through this model's sensor and eye."""
        return Scene(self.sensor(self.standard(images).to(images.dtype)), self.eye)

    def sensor(self, images: Tensor) -> Any:
        """What reads glimpses of the images."""
        if self.config.attention == "grid":
            return Filtered(images)
        glimpses = rg.Glimpses(images, self.size, self.scales)
        return Zoomed(glimpses) if self.zooms else glimpses

    def start(self, images: Tensor) -> State:
        """What is known before the first glimpse: nothing, and the middle of the image."""
        paths = (self.draws if self.training else 1, images.shape[0])
        nothing = images.new_zeros(*paths, self.config.hidden)
        count = torch.zeros(paths, dtype=torch.long, device=images.device)
        middle = torch.zeros(*paths, self.coordinates, device=images.device)
        return State(nothing, nothing, middle, count)

    def glimpse(self, state: State, scene: Scene, memory: rg.Memory | None) -> tuple[State, rg.Attended]:
        """What is known after one more glimpse, and where it was."""
        out = self.attention(state, scene, memory)
        core = (self.remember(state.memory) + self.take_in(out.context)).relu()
        return State(core, out.context, state.location if out.z is None else out.z, state.count + 1), out


def _each_step(parts: Iterable[Tensor]) -> Tensor:
    """T tensors (S, B, ...) as one, (S, B, T, ...)."""
    return torch.stack(list(parts), 2)


def patches(config: Config, side: int) -> tuple[int, int]:
    """The size and the number of scales of a glimpse, from the shorter side of the image unless they are given."""
    size = config.size or min(32, max(4, round(side / 5)))
    scales = config.scales or next(scales for scales in range(1, 20) if size * 2 ** (scales - 1) >= 0.4 * side)
    return size, scales


class Convolutional(nn.Module):
    """A network that reads every pixel, for pictures a residual one: what it answers needs no glimpses."""

    def __init__(self, splits: datasets.Splits):
        super().__init__()
        self.classes, self.facts, self.standard = splits.classes, facts(splits), standard(splits)
        small = isinstance(self.standard, nn.Identity)
        self.layers = Small(splits.shape[0]) if small else Residual(splits.shape)
        self.classify = nn.Linear(self.layers.size, len(splits.classes))

    def forward(self, images: Tensor) -> Output:
        found = self.layers(self.standard(images))
        answers = self.classify(found).float()[None, :, None]  # (1, B, 1, classes)
        return Output(answers, answers, images.numel())


def standard(splits: datasets.Splits) -> nn.Module:
    """What puts pictures on one footing; digits, which have no bits, are on one."""
    pictures = isinstance(splits.train, datasets.Pictures) and splits.train.bits
    return Standard(splits.train) if pictures else nn.Identity()  # pyright: ignore[reportArgumentType]


def Model(config: Config, splits: datasets.Splits) -> Recurrent | Convolutional:
    """The network that the configuration names."""
    return Convolutional(splits) if config.attention == "cnn" else Recurrent(config, splits)


def loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of every answer, and of every glimpse by itself; for hard attention the policy's surrogate and
    the fit of its baseline as well."""
    output = model(batch["image"])
    answers, alone = (_cross_entropy(logits, batch["label"]) for logits in (output.answers, output.alone))  # (S, B, T)
    total = answers.mean()
    logs = {"error": _wrong(output.answers[:, :, -1], batch["label"]).mean()}
    if output.looks:
        total = total + model.config.alone * alone.mean()
    if output.looks and model.baseline is not None:
        policy, policy_logs = _policy_loss(model, output, answers.detach(), alone.detach())
        total, logs = total + policy, logs | policy_logs
    return total, logs


def _policy_loss(model: Any, output: Any, answers: Tensor, alone: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's surrogate, its entropy and the fit of its baseline, from what the glimpses (S, B, T) cost."""
    config, policy, state = model.config, model.attention.policy, output.before
    if config.credit == "last":
        answers = torch.cat((torch.zeros_like(answers[..., :-1]), answers[..., -1:]), -1)
    costs = rg.to_go(answers, config.discount) + config.alone * alone
    expected = model.baseline(torch.cat((state.memory, state.glimpse), -1)).float()
    positions = policy(state)
    log_prob = positions.log_prob(_each_step([look.z for look in output.looks]))
    if len(costs) == 1:
        surrogate = rg.reinforce(log_prob, costs, expected)
    else:
        surrogate = rg.leave_one_out(log_prob, costs - expected.detach())
    entropy = positions.entropy().mean()
    logs = {
        "signal_to_noise": _signal_to_noise(surrogate, positions.centre, policy.known(state)),
        "policy_entropy": entropy.detach(),
    }
    return surrogate.mean() + (expected - costs).square().mean() - config.entropy * entropy, logs


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of logits (S, B, T, classes) and labels (B,): (S, B, T)."""
    labels = labels[:, None].expand(logits.shape[:-1])
    return cross_entropy(logits.movedim(-1, 1), labels, reduction="none")


def _signal_to_noise(surrogate: Tensor, centre: Tensor, known: Tensor) -> Tensor:
    """Of the policy's gradient: the norm of its mean over the images by the standard error of that mean, for the
    weights of the layer that moves, whose gradient is the sum over draws and steps of slope times input."""
    (slopes,) = torch.autograd.grad(surrogate.sum(), centre, retain_graph=True)  # (S, B, T, 2)
    gradients = torch.einsum("sbti,sbtj->bij", slopes, known.detach().float()).flatten(1)  # (B, 2 * 128)
    error = gradients.var(0, correction=0).sum().div(len(gradients)).sqrt()
    return gradients.mean(0).norm() / error.clamp_min(torch.finfo(error.dtype).tiny)


def _wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the answers (S, B, classes) are wrong: (S, B)."""
    return (logits.argmax(-1) != labels).float()


def evaluate(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each image, (B,): whether the last answer is wrong, the pixels read, the share of glimpses from the third on
    (of all, if there are but two) that are in the digit's box, if there is one, the spread of the n-th glimpses over
    the images, and for soft attention the mean entropy of its weights, or of its filters."""
    output, labels = model(batch["image"]), batch["label"]
    values = {
        "error": _wrong(output.answers[0, :, -1], labels),
        "pixels": torch.full(labels.shape, output.pixels / len(labels)),
    }
    if output.looks and "box" in batch:
        inside = [_inside(model.attention.looked(look), batch) for look in output.looks[2:] or output.looks]
        values["on_digit"] = torch.stack(inside).mean(0)
    if output.looks and output.looks[0].z is not None:
        values["spread"] = _spread(output.looks).expand(len(labels))
    if output.looks and output.looks[0].z is None:
        entropies = [look.positions.entropy().reshape(len(labels), -1).mean(-1) for look in output.looks]
        values["entropy"] = torch.stack(entropies).mean(0)
    return values


def _inside(looked: tuple[Tensor, Tensor], batch: dict[str, Tensor]) -> Tensor:
    """The share (B,) of a glimpse's locations that is in the boxes."""
    locations, shares = looked
    pixels = (locations[..., :2] + 1) / 2 * batch["box"].new_tensor(batch["image"].shape[-2:])
    low, high = batch["box"].split(2, -1)
    return (shares * ((pixels >= low) & (pixels < high)).all(-1)).sum(0)


def _spread(looks: Sequence[rg.Attended]) -> Tensor:
    """How far apart the images of a batch have their n-th glimpse: the standard deviation over the images, averaged
    over the glimpses but the first, for which nothing is known yet."""
    locations = torch.stack([look.z[0] for look in looks[1:] or looks])  # (T, B, 2)
    return locations.std(1, correction=0).mean()


def warning(row: dict[str, int | float]) -> str:
    """What should be said of an epoch's metrics, if anything: that the policy has collapsed."""
    spread = row.get("valid_spread", 1.0)
    if "train_policy_entropy" in row and spread < COLLAPSED:
        return (
            f"the policy has collapsed: its paths are alike for all images (valid_spread is {spread:.2g} of half an "
            "image); try a larger --width, more --draws, some --entropy, or a smaller --learning_rate"
        )
    return ""


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, with a rate of its own for the policy."""
    policy = [weights for name, weights in model.named_parameters() if name.startswith("attention.policy.")]
    others = [weights for name, weights in model.named_parameters() if not name.startswith("attention.policy.")]
    groups = [{"params": others}, {"params": policy, "lr": config.policy_rate * config.learning_rate}]
    found, schedule = adam(groups[: 1 + bool(policy)], config.learning_rate, steps, betas=(0.9, 0.99))
    return clipped(found, config.clip) if config.clip else found, schedule


def after_step(model: Any) -> None:
    """Makes the draws of the next step a little less wide, if a policy is learned."""
    for policy in (part for part in model.modules() if isinstance(part, Moves)):
        policy.narrow()


def noun(splits: datasets.Splits) -> str:
    """What is classified."""
    return "picture" if isinstance(splits.test, datasets.Pictures) else "image"


def task(splits: datasets.Splits) -> str:
    """The task on these images."""
    if noun(splits) == "picture":
        return "Classify a picture by a few glimpses of it: recurrent visual attention."
    return first_paragraph(__doc__ or "")


def look(model: Any, batch: dict[str, Tensor]) -> Look:
    """Where the model looked on these images, and what it answered."""
    output = model(batch["image"])
    where: dict[str, Any] = {}
    if output.looks and isinstance(model.attention, Through):
        where = _windows([look.positions for look in output.looks], batch["image"])
    elif output.looks and output.looks[0].z is None:
        where["weights"] = torch.stack([look.weights.squeeze(1) for look in output.looks], 1)  # (B, T, G)
        where["grid"] = model.attention.places
    elif output.looks:
        z, sensor = torch.stack([look.z[0] for look in output.looks]), model.sensor(batch["image"])  # (T, B, 2)
        where = {"locations": z[..., :2].transpose(0, 1), "patches": sensor.read(z).transpose(0, 1)}
        if isinstance(sensor, Zoomed):
            where["spans"] = model.size * 2.0 ** sensor.scale(z).T
    predictions = output.answers[0, :, -1].argmax(-1)
    return Look(batch["image"], batch["label"], predictions, boxes=batch.get("box"), classes=model.classes, **where)


def _windows(windows: Sequence[Any], images: Tensor) -> dict[str, Tensor]:
    """Where windows (1, B) were, how many pixels they reached over, and what was seen there, for a `Look`."""
    each = (
        (window.centre[0], window.stride[0, :, 0] * window.size * images.shape[-2] / 2, window.read(images)[0])
        for window in windows
    )
    locations, spans, patches = (torch.stack(part, 1) for part in zip(*each, strict=True))
    return {"locations": locations, "spans": spans, "patches": patches.unsqueeze(2)}  # (B, T, 1, C, N, N)


def explained(model: Any, batch: dict[str, Tensor]) -> explaining.Explained | None:
    """The class by the pixels that are kept, the others being dark; how often each was read; the box of the digit, if
    there is one; and of hard attention the certificate that the others were not."""
    images = batch["image"]
    pixels = images.flatten(2).mT  # (B, Y X, C)

    def looked(given: Tensor) -> Output:
        with random_state_kept(images.device):  # so that what draws its places draws the same ones each time
            seed_all(0, images.device)
            return model(given.mT.view_as(images))

    output, chances = looked(pixels), lambda given: looked(given).answers[0, :, -1].softmax(-1)
    if not output.looks or isinstance(model.attention, Through):
        return None
    read = _read(model, images, output.looks)
    truth = None if "box" not in batch else _in_box(batch["box"], *images.shape[-2:])
    hard = output.looks[0].z is not None
    unread = (lambda: rg.faithfulness.certificate(chances, pixels, read > 0)) if hard else None
    told = lambda kept: chances(pixels * kept.unsqueeze(-1))  # noqa: E731
    return explaining.explained(told, read, torch.ones_like(read).bool(), truth, unread, gradual=True)


@torch.enable_grad()
def _read(model: Any, images: Tensor, looks: Sequence[rg.Attended]) -> Tensor:
    """How much of each pixel was read by all glimpses together, (B, Y X): the gradient of what they read of it."""
    whole = torch.ones_like(images[:, :1]).requires_grad_()
    sensor = model.sensor(whole)
    looked = (model.attention.looked(each) for each in looks)
    sums = [
        (shares * sensor.read(where.expand(-1, len(images), -1)).flatten(2).sum(-1)).sum() for where, shares in looked
    ]
    return torch.autograd.grad(torch.stack(sums).sum(), whole)[0].flatten(1)


def _in_box(box: Tensor, height: int, width: int) -> Tensor:
    """Which pixels are in the boxes (B, 4), (B, Y X)."""
    low, high = box.unsqueeze(1).split(2, -1)
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width)) + 0.5
    return ((pixels >= low) & (pixels < high)).all(-1)


READS, inputs = "paths of pictures, one a line", paths


class Answer(NamedTuple):
    """The class of a picture, and its probability."""

    name: str
    probability: float


def prepare(model: Any, given: str | Path | Tensor) -> Tensor:
    """The picture in a file as an image (C, Y, X) such as the model knows; an image stays as it is."""
    return given if isinstance(given, Tensor) else picture_for(model.facts, given)


def predict(model: Any, prepared: Sequence[Tensor], options: Any) -> list[Answer]:
    """The most probable class of each image."""
    best = model(torch.stack(list(prepared))).answers[0, :, -1].softmax(-1).max(-1)
    return [
        Answer(model.classes[label], probability)
        for probability, label in zip(*(each.tolist() for each in best), strict=True)
    ]


def written(given: Any, prediction: Answer) -> str:
    """The class, its probability, and the path."""
    return f"{prediction.name}\t{prediction.probability:.4f}\t{given}"
