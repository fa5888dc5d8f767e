"""Answer a question about an image that is too large to read: from a view from afar, and a few patches of it.

Katharopoulos and Fleuret 2019, "Processing megapixel images with deep attention-sampling models": a small network sees
the image made smaller, and says where it is worth to look; a few places are drawn from that distribution without
replacement, and only the patches there are read. Weighted right, what a network finds in them is on average what it
would have found everywhere (`rg.importance`), in value and in gradient: nothing else is needed to train where to look.

- `sampled` draws its places in training, and takes the likeliest afterwards; `top-k` always takes the likeliest.
- `random` draws them blindly, and `grid` takes places that are spread evenly.
- `all` reads every patch, weighted from afar; `mil` and `gated-mil` weigh what was found in them (Ilse, Tomczak and
  Welling 2018, "Attention-based deep multiple instance learning", equations 8 and 9); `ips` looks through them all for
  the best, without gradients, and learns from these (Bergner et al. 2023, "Iterative patch selection").

    regard train sampling                           the majority of five digits on 1500 x 1500 pixels: minutes
    regard train sampling --task max
    regard compare sampling --attentions sampled,random,grid

To reach: 5 % wrong, reading 2.6 % of the pixels, where the published implementation needs 210 epochs to begin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regard as rg
from regard.app import flags
from regard.app.data.folder import NONE
from regard.app.data.generators.megapixel import Megapixel, Pasted, covered
from regard.app.data.large import Large, large_images, large_images_to_test
from regard.app.data.mnist import find, holds_digits
from regard.app.data.splits import Splits, hold_out
from regard.app.facts import Facts, read_facts
from regard.app.report.report import Look
from regard.app.vision import answering
from regard.app.vision.answering import READS, Prediction, inputs, named, predict, prepare, written  # noqa: F401
from regard.app.vision.sampled import WAYS, Chosen, Encoded, Gated, PatchNetwork, Prior, centres, ranked
from regard.recipes.base import COSTS, ERROR, Measure, Metric

METRIC = Metric("valid_error", "min", "error on the validation images")

NAMED_BY, QUICK = ("attention",), {"epochs": 2, "scenes": 1000}

COLUMNS = (
    ERROR,
    Measure("test_share", 100, "read", "%", "Of the pixels of an image; the view from afar counts, too."),
    Measure("test_covered", 100, "covered", "%", "Share of the digits that lie in a patch that was read."),
    Measure("test_entropy", 1, "entropy", "nats", "Of where to look, over all places."),
    *COSTS,
)

KINDS = {
    "sampled": "Draws a few places by what is seen from afar; in evaluation it takes the likeliest.",
    "top-k": "Takes the few places that are likeliest by what is seen from afar.",
    "random": "The same network, but its places are drawn blindly.",
    "grid": "The same network, at places that are spread evenly.",
    "all": "Reads every patch, and weighs what it finds by what is seen from afar.",
    "mil": "Reads every patch, and weighs what it finds by that itself.",
    "gated-mil": "The same, with a gate.",
    "ips": "Reads every patch without learning from it, and learns from those that it weighs most.",
}
EVERYWHERE, SEES, BLIND = ("all", "mil", "gated-mil", "ips"), ("sampled", "top-k", "all"), ("random", "grid")
MOST, LEAST, ENOUGH = 1.0, 0.2, 2.3
"""The weight of each patch's own answer, at first and at the end; and nats that the entropy should not fall below."""
NO_DIGITS = torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.long)


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the scenes and the draws."""
    data: str = "embedded"
    """Of the digits: embedded, hub, or a folder of MNIST's files. Or images of your own, of any format that open_image
    knows: a folder with train/CLASS/* and test/CLASS/*, or a CSV file with the columns path and label."""
    task: Literal["majority", "max", "top", "several"] = "majority"
    """Which digit is there three times, is the largest, or lies topmost; or which are there at all."""
    attention: Literal["sampled", "top-k", "random", "grid", "all", "mil", "gated-mil", "ips"] = "sampled"
    """How it is chosen where to look."""
    patches: int = 10
    """Patches that are read of an image."""
    size: int = 50
    """Height and width of a patch, in pixels."""
    side: int = 1500
    """Height and width of an image, in pixels."""
    view: int = 180
    """The same of the view from afar."""
    grid: int = 60
    """Places in a row, and rows; half as many where every patch is read."""
    noise: int = 50
    """Strokes on an image that are no digits."""
    prior: Literal["contrast", "brightness", "learned"] = "contrast"
    """What is worth to look at before anything is learned."""
    answer: Literal["majority", "vote", "mean"] | None = None
    """Whether patches vote, or what is found in them is averaged and then judged. By majority, the votes of a few count
    alike once it is trained, or two digits that are seen well outvote three. If not given, as the task suggests."""
    auxiliary: bool | None = None
    """Whether each patch must answer by itself, too; if not given, on the majority."""
    floor: float = 0.3
    """The weight of the nats that the entropy of where to look lacks to 2.3."""
    features: int = 64
    """Numbers that describe a patch."""
    scenes: int = 5000
    """Images of an epoch, new ones every time."""
    epochs: int = 12
    """Times so many images."""
    batch: int = 32
    """Images of a step."""
    learning_rate: float = 3e-3
    """The highest; it rises over a tenth of the steps, and then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "patches", "size", "side", "view", "grid", "features", "scenes")
        if self.view % self.grid or self.view > self.side:
            expected = f"a multiple of the {self.grid} places of --grid, up to the {self.side} of --side"
            raise ValueError(f"--view expected {expected}, but got {self.view}")
        if self.patches > self.grid**2:
            raise ValueError(f"--patches expected at most the {self.grid**2} places, but got {self.patches}")


def data(config: Config) -> Splits:
    """Scenes of digits: other ones in every epoch of training, and fixed ones of other digits to be judged by; or
    images of the user's own."""
    if is_own(config):
        return large_images(config.data, config.view)
    found, source = find(config.data)
    train, valid = hold_out(found.labels)
    scenes = partial(Megapixel, question=config.task, side=config.side, noise=config.noise, view=config.view)
    about = f"{source}, five on {config.side:,} x {config.side:,} pixels among {config.noise} strokes"
    return Splits(
        scenes(found.images[train], found.labels[train], config.scenes),
        scenes(found.images[valid], found.labels[valid], 500, seed=1),
        scenes(found.test_images, found.test_labels, 1000, seed=2),
        about,
        tuple("0123456789"),
        (1, config.side, config.side),
    )


def is_own(config: Config) -> bool:
    """Whether the images are the user's."""
    return config.data not in ("embedded", "hub") and not holds_digits(Path(config.data))


def tested(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """Images to test on, of the classes that were learned."""
    classes = known(config, weights).classes
    return large_images_to_test(config.data, classes, config.view) if is_own(config) else data(config)


def known(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """No images, but of which kind they were."""
    found = read_facts(weights)
    none = Large(NONE, config.view) if found["own"] else Megapixel(*NO_DIGITS, 0, config.task)
    return Splits(none, none, none, "", tuple(found["classes"]), tuple(found["shape"]))


def sensor(batch: Mapping[str, Any], config: Config) -> Any:
    """What reads patches of the images of a batch."""
    if "image" in batch:
        return rg.Glimpses(batch["image"].sources, config.size)
    return Pasted(batch["pieces"], batch["corners"], config.side, config.size)


class Output(NamedTuple):
    """What B images came to, by N patches."""

    logits: Tensor
    """Of the classes, (B, classes): log-probabilities, but of the task `several`."""
    each: Tensor
    """What each patch says by itself, logits (B, N, classes)."""
    z: Tensor
    """The places that were read, (B, N)."""
    attention: Tensor
    """How it is spread over all places, (B, K)."""

    @property
    def entropy(self) -> Tensor:
        """Of where to look, (B,), in nats."""
        return rg.OneHot(weights=self.attention).entropy()


class Model(nn.Module):
    """Sees an image from afar, looks at a few places, and answers."""

    places: Tensor
    steps: Tensor

    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        self.config, own = config, isinstance(splits.train, Large)
        self.facts = Facts(classes=list(splits.classes), shape=list(splits.shape), own=own)
        channels, classes, size = splits.shape[0], len(splits.classes), config.features
        grid = config.grid // 2 if config.attention in EVERYWHERE else config.grid
        self.register_buffer("places", centres(grid), persistent=False)
        size_from_afar = round(config.size * config.view / min(splits.shape[1:]))
        self.prior = Prior(channels, config.view, size_from_afar, grid, config.prior)
        self.network = PatchNetwork(channels, size, ground=0.5 if own else 0.0)
        gated = Gated(size, size) if config.attention in ("gated-mil", "ips") else None
        self.score: Any = rg.Additive(1, size, size) if config.attention == "mil" else gated
        self.several = config.task == "several" and not own
        answer = config.answer or {"majority": "majority", "top": "vote"}.get("" if own else config.task, "mean")
        self.votes, self.alike = answer != "mean", answer == "majority" and config.attention not in EVERYWHERE
        layer = [] if self.votes else [nn.Linear(size, size), nn.ReLU()]
        self.judge = nn.Sequential(nn.LayerNorm(size), *layer, nn.Linear(size, classes))
        self.register_buffer("steps", torch.tensor(0.0))

    def forward(self, batch: Mapping[str, Tensor]) -> Output:
        view, patches = batch["view"], Encoded(sensor(batch, self.config), self.places, self.network)
        blind = view.new_zeros(view.shape[0], 1, len(self.places))
        scores = self.prior(view) if self.config.attention in SEES else blind
        z, weights = self.chosen(scores, patches)
        found = patches.read(z)
        weights = self.weights(found) if weights is None else weights
        if self.alike and not self.training:
            weights = torch.full_like(weights, 1 / weights.shape[1])
        each = self.judge(found)
        spread = scores.squeeze(1).softmax(-1)
        attention = torch.zeros_like(spread).scatter(1, z, weights) if self.score else spread
        mean = (weights.unsqueeze(1) @ (each.softmax(-1) if self.votes else found)).squeeze(1)
        return Output(mean.clamp(min=1e-6).log() if self.votes else self.judge(mean), each, z, attention)

    def chosen(self, scores: Tensor, patches: Encoded) -> Chosen:
        """The places that are read, and what each counts."""
        kind, count = self.config.attention, self.config.patches
        if kind == "ips":
            return Chosen(self.weights(patches.in_blocks(len(scores))).topk(count).indices, None)
        if kind in ("mil", "gated-mil"):
            return Chosen(WAYS["all"](scores, count).z, None)
        return WAYS["top-k" if kind == "sampled" and not self.training else kind](scores, count)

    def weights(self, found: Tensor) -> Tensor:
        """What each patch counts, by what was found in it, (B, N)."""
        return self.score(found.new_zeros(found.shape[0], 1, 1), found).squeeze(1).softmax(-1)


def costs(logits: Tensor, label: Tensor) -> Tensor:
    """The cross-entropy of answers (B, ..., classes), of each; of several that may all be right, their mean."""
    if logits.dim() == 3:
        label = label.unsqueeze(1).expand(logits.shape[: 1 + label.dim()])
    if label.dim() == logits.dim():
        return F.binary_cross_entropy_with_logits(logits, label.float(), reduction="none").mean(-1)
    return F.cross_entropy(logits.movedim(-1, 1), label, reduction="none")


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy, with that of each patch's own answer, and the entropy that where to look lacks."""
    config, output = model.config, model(batch)
    cost = costs(output.logits, batch["label"]).mean()
    total = cost + config.floor * (ENOUGH - output.entropy).relu().mean()
    if model.votes and config.task == "majority" if config.auxiliary is None else config.auxiliary:
        done = torch.clamp(model.steps * config.batch / (config.epochs * config.scenes), max=1)
        total = total + (MOST + (LEAST - MOST) * done) * costs(output.each, batch["label"]).mean()
    return total, {"cost": cost, "entropy": output.entropy.mean()}


def after_step(model: Model) -> None:
    """Counts the steps, by which a patch's own answer weighs less and less."""
    model.steps += 1


@torch.no_grad()
def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each image, (B,): whether it was answered wrongly, its cost, what was read, and of what."""
    output, label, config = model(batch), batch["label"], model.config
    answer = output.logits.argmax(-1) if label.dim() == 1 else output.logits > 0
    wrong = (answer != label).view(len(label), -1).any(1).float()
    read = len(model.places) if config.attention == "ips" else 0
    pixels = (output.z.shape[1] + read) * config.size**2 + config.view**2 * (config.attention in SEES)
    values = {"error": wrong, "cost": costs(output.logits, label), "entropy": output.entropy}
    if "image" in batch:
        sides = torch.tensor([source.shape[1:] for source in cast(Any, batch["image"]).sources])
        return values | {"share": pixels / sides.prod(1)}
    middles, share = (model.places[output.z] + 1) / 2 * config.side, torch.full_like(wrong, pixels / config.side**2)
    return values | {"share": share, "covered": covered(batch["corners"], middles, config.size)}


def noun(splits: Splits) -> str:
    """What is asked about."""
    return "image"


@torch.no_grad()
def look(model: Model, batch: dict[str, Tensor]) -> Look:
    """The images, how the attention is spread over each, unless it looks blindly, and patches that were read of it."""
    config, output, looked = model.config, model(batch), sensor(batch, model.config)
    z = ranked(output.z, output.attention)[:, : answering.SHOWN]
    patches = looked.read(model.places[z].transpose(0, 1)).transpose(0, 1)  # (B, N, 1, C, size, size)
    names, labels, answers = named(batch["label"], output.logits, model.facts.values["classes"])
    share = config.size / min(model.facts.values["shape"][1:])
    where: dict[str, Any] = {"patches": patches, "spans": torch.full(z.shape, share * answering.OVERVIEW)}
    if config.attention not in BLIND:
        where |= {"weights": output.attention.unsqueeze(1), "grid": model.places}
    return Look(answering.overviews(batch, looked), labels, answers, model.places[z], classes=names, **where)
