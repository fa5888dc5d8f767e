"""Paint images step by step on a canvas, reading and writing through a window that moves: DRAW.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation": at every step an encoder reads the image
and what the canvas still lacks, a latent variable is drawn from what it says, and a decoder adds to the canvas. With
attention both read and write by a small grid of Gaussian filters, `regard.GaussianGrid`, whose place, spacing and
sharpness the decoder chooses; without, they read and write everything. An autoencoder and a variational one (Kingma
and Welling 2014, Rezende et al. 2014), which see and paint everything once, stand beside them.

The images are binarised: a pixel is on with the probability that is its brightness, drawn with a fixed seed in
validation and test, and afresh in every batch of training. What is measured is the negative evidence bound in nats an
image, from one draw of the latent variables.

    regard train draw --model draw              one of them: minutes on one core
    regard compare draw                         all four side by side

The number to reach with ten steps on MNIST: 95 nats. The paper's, with 64 steps, much longer training and another
binarisation, are 80.97 with attention and 87.40 without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from regard.app import data as datasets
from regard.app import flags
from regard.app.data.folder import Listing, picture_for
from regard.app.data.generators.binary import Binarised, drawn
from regard.app.facts import Facts, read_facts
from regard.app.report.canvas_figures import painting, sheet
from regard.app.report.report import Picture
from regard.app.report.text_figures import png
from regard.app.text.networks import lstm
from regard.app.training.schedules import adam
from regard.app.vision.painting import Attentive, State, Whole, divergence, first_canvas, layers, reconstruction
from regard.app.vision.windows import frames
from regard.recipes.base import COSTS, Measure, Metric, paths

METRIC = Metric("valid_nats", "min", "nats an image", label="The bound", unit="nats")

NAMED_BY, QUICK = ("model",), {"epochs": 1}

COLUMNS = (
    Measure("test_nats", 1, "bound", "nats", "Negative evidence bound of a test image; an autoencoder's is none."),
    Measure("test_reconstruction", 1, "reconstruction", "nats", "Cross-entropy of the image given the latents."),
    Measure("test_divergence", 1, "divergence", "nats", "Of the posterior of the latents from their prior."),
    *COSTS,
)

KINDS = {
    "autoencoder": "Sees and paints everything once, through a code without noise: its nats are the cross-entropy of "
    "the reconstruction alone, no bound on the likelihood, and it cannot be sampled from.",
    "vae": "Sees and paints everything once, through one latent variable: the variational autoencoder.",
    "draw": "Reads and writes a small grid of Gaussian filters at every step: soft attention that moves and zooms.",
    "draw-without-attention": "The same network, but it reads and writes the whole image at every step.",
}

SAMPLES, HOW = 32, " It read through the dashed frame before and wrote through the other."


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the order of the images, where they lie on the canvas, and the draws."""
    data: str = "embedded"
    """embedded (10,000 digits), hub, a folder of MNIST's files, or one of pictures: train/CLASS/*.png, test/CLASS/*."""
    model: Literal["autoencoder", "vae", "draw", "draw-without-attention"] = "draw"
    """What paints; the first two do so at once."""
    canvas: int | None = None
    """Height and width of the images in pixels; if not given, 28 for digits, for pictures what their sizes suggest."""
    steps: int = 10
    """Steps in which an image is painted."""
    latent: int = 20
    """Size of the latent variable of a step, or of the only one."""
    hidden: int = 256
    """Units of the encoder and of the decoder; twice as many in each of the two layers of an autoencoder's."""
    read: int = 5
    """Filters each way of the window that is read through."""
    write: int = 5
    """Filters each way of the window that is written through."""
    epochs: int = 10
    """Passes over the training images."""
    batch: int = 128
    """Images of a step."""
    learning_rate: float = 4e-3
    """The highest, after a fiftieth of the steps; it then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "canvas", "steps", "latent", "hidden", "read", "write")


def data(config: Config) -> datasets.Splits:
    """The images, binarised."""
    pictures = (Path(config.data) / "train").is_dir()
    return binarised(config, datasets.load(config.data, config.canvas or (None if pictures else 28), clutter=0))


def binarised(config: Config, splits: datasets.Splits) -> datasets.Splits:
    """The splits with their images drawn. Raises ValueError where a window has more filters than the image pixels."""
    side = min(splits.shape[1:])
    if config.model == "draw" and max(config.read, config.write) > side:
        raise ValueError(f"a window of {max(config.read, config.write)} filters is larger than a canvas of {side}")
    train, valid, test = Binarised(splits.train), Binarised(splits.valid, seed=1), Binarised(splits.test, seed=2)
    return splits._replace(train=train, valid=valid, test=test, describe=f"{splits.describe}, binarised")


def facts(splits: datasets.Splits) -> Facts:
    """What a model must know of its images: their classes, their shape, and the bits of pictures."""
    images = getattr(splits.train, "split", None)
    bits = images.bits if isinstance(images, datasets.Pictures) else 0
    return Facts(classes=splits.classes, shape=splits.shape, bits=bits)


def known(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """No images, but their shape."""
    found = read_facts(weights)
    shape = tuple(found["shape"])
    none = datasets.Pictures(Listing([], torch.zeros(0, dtype=torch.long)), shape, found["bits"])
    return binarised(config, datasets.Splits(none, none, none, "", tuple(found["classes"]), shape))


def tested(config: Config, weights: Mapping[str, Tensor]) -> datasets.Splits:
    """Images of the shape that was learned, to test on."""
    classes, shape, bits = (read_facts(weights)[name] for name in ("classes", "shape", "bits"))
    return binarised(config, datasets.images_to_test(config.data, classes, tuple(shape), 0, bits or None))


class Output(NamedTuple):
    """What images (B, C, Y, X) came to in T steps."""

    reconstruction: Tensor
    """The cross-entropy of the images given the last canvas, (B,)."""
    divergence: Tensor
    """Of each latent variable's posterior from its prior, (B, T)."""
    canvases: Sequence[Tensor]
    """The logits of the pixels after each step, (B, C, Y, X)."""
    windows: Sequence[tuple[Any, Any]] = ()
    """Where each step read and wrote."""

    @property
    def nats(self) -> Tensor:
        """The negative evidence bound (B,), equation 12 of Gregor et al. 2015."""
        return self.reconstruction + self.divergence.sum(-1)


class Recurrent(nn.Module):
    """DRAW: an encoder and a decoder, both LSTMs, that read and write a canvas (equations 3 to 8)."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        self.config, self.shape, self.facts = config, splits.shape, facts(splits)
        hidden, latent = config.hidden, config.latent
        self.brush: Any = (Attentive if config.model == "draw" else Whole)(config, self.shape)
        self.encode, self.infer = nn.Linear(2 * hidden, 4 * hidden, bias=False), nn.Linear(hidden, 2 * latent)
        self.decode = nn.Linear(latent + hidden, 4 * hidden)
        self.canvas, self.start = (
            nn.Parameter(first_canvas(splits.train, self.shape)),
            nn.Parameter(torch.zeros(2, hidden)),
        )

    def forward(self, images: Tensor) -> Output:
        count, config = images.shape[0], self.config
        noise = torch.randn(config.steps, count, config.latent, device=images.device)
        seen, canvas, decoder = self.brush.prepare(images), *self.begin(count)
        encoder = State(images.new_zeros(count, config.hidden), images.new_zeros(count, config.hidden))
        canvases, windows, posteriors = [], [], []
        for each in noise:
            drive, read = self.brush.read(seen, canvas.sigmoid(), decoder.hidden)
            known = torch.cat((decoder.hidden, encoder.hidden), -1)
            encoder = State(*lstm(drive + self.encode(known), encoder.cell))
            posteriors.append(self.infer(encoder.hidden))
            mean, log_width = posteriors[-1].chunk(2, -1)
            canvas, decoder, written = self.paint(mean + log_width.exp() * each, canvas, decoder)
            canvases.append(canvas)
            windows.append((read, written))
        return Output(reconstruction(canvas, images), divergence(torch.stack(posteriors, 1)), canvases, windows)

    def begin(self, count: int) -> tuple[Tensor, State]:
        """The canvas and the decoder before the first step."""
        return self.canvas.expand(count, *self.shape), State(*self.start.unsqueeze(1).repeat(1, count, 1))

    def paint(self, z: Tensor, canvas: Tensor, decoder: State) -> tuple[Tensor, State, Any]:
        """The canvas and the decoder after one more step with the latent variable z (B, Z)."""
        decoder = State(*lstm(self.decode(torch.cat((z, decoder.hidden), -1)), decoder.cell))
        stroke, window = self.brush.write(decoder.hidden)
        return canvas + stroke, decoder, window

    def sample(self, count: int) -> Tensor:
        """The last canvas (count, C, Y, X) of latent variables that are drawn from the prior."""
        canvas, decoder = self.begin(count)
        for _ in range(self.config.steps):
            canvas, decoder, _ = self.paint(torch.randn(count, self.config.latent), canvas, decoder)
        return canvas


class Autoencoder(nn.Module):
    """Sees and paints at once, through a code that is a point, or drawn: a network of two layers either way."""

    def __init__(self, config: Config, splits: datasets.Splits):
        super().__init__()
        self.config, self.shape, self.facts = config, splits.shape, facts(splits)
        self.is_drawn, units, pixels = config.model == "vae", 2 * config.hidden, torch.Size(self.shape).numel()
        self.infer, self.decode = layers(pixels, units, 2 * config.latent), layers(config.latent, units, pixels)

    def forward(self, images: Tensor) -> Output:
        posterior = self.infer(images.flatten(1))
        mean, log_width = posterior.chunk(2, -1)
        z = mean + log_width.exp() * torch.randn_like(mean) if self.is_drawn else mean
        canvas = self.decode(z).unflatten(-1, self.shape)
        price = divergence(posterior.unsqueeze(1)) * self.is_drawn
        return Output(reconstruction(canvas, images), price, [canvas])

    def sample(self, count: int) -> Tensor:
        """The canvas of codes that are drawn from the prior; none of an autoencoder, whose codes have none."""
        z = torch.randn(count if self.is_drawn else 0, self.config.latent)
        return self.decode(z).unflatten(-1, self.shape)


def Model(config: Config, splits: datasets.Splits) -> Recurrent | Autoencoder:
    """The network that the configuration names."""
    return (Recurrent if config.model.startswith("draw") else Autoencoder)(config, splits)


def loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The bound and its two parts, means over the images."""
    means = {name: each.mean() for name, each in evaluate(model, batch).items()}
    return means.pop("nats"), means


def evaluate(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each image, (B,): the bound and its two parts."""
    output = model(batch["image"])
    return {"nats": output.nats, "reconstruction": output.reconstruction, "divergence": output.divergence.sum(-1)}


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """Adam, its rate rising over a fiftieth of the steps."""
    return adam(model.parameters(), config.learning_rate, steps, rising=50)


def noun(splits: datasets.Splits) -> str:
    """What is painted."""
    return "image"


@torch.no_grad()
def look(model: Any, batch: dict[str, Tensor]) -> list[Picture]:
    """How each image was painted, and samples from the prior, if there is one."""
    images = batch["image"]
    output = model(images)
    canvases = torch.stack([each.sigmoid() for each in output.canvases], 1)  # (B, T, C, Y, X)
    over = [frames(windows) for windows in zip(*output.windows, strict=True)] or [None, None]
    pictures = []
    for n, nats in enumerate(output.nats.tolist()):
        edges = (None if each is None else each[n] for each in over)
        how = f"The image, and the canvas after each of {canvases.shape[1]} steps." + HOW * (over[0] is not None)
        pictures.append(Picture(f"{nats:.1f} nats", how, png(painting(images[n], canvases[n], *edges))))
    if len(samples := model.sample(SAMPLES)):
        pictures.append(Picture("Samples", "Images painted from the prior.", png(sheet(samples.sigmoid()))))
    return pictures


READS, inputs = "paths of pictures, one a line", paths


class Answer(NamedTuple):
    """The bound of a picture and its parts, in nats."""

    nats: float
    reconstruction: float
    divergence: float


def prepare(model: Any, given: str | Path | Tensor) -> Tensor:
    """The picture in a file, or an image (C, Y, X) in [0, 1], as the model knows them: binarised."""
    image = given if isinstance(given, Tensor) else picture_for(model.facts, given)
    return (drawn(image.shape, seed=0) < image).float()


def predict(model: Any, prepared: Sequence[Tensor], options: Any) -> list[Answer]:
    """The bound of each picture."""
    values = evaluate(model, {"image": torch.stack(list(prepared))})
    return [Answer(*each) for each in zip(*(values[name].tolist() for name in Answer._fields), strict=True)]


def written(given: Any, prediction: Answer) -> str:
    """The bound and the path."""
    return f"{prediction.nats:.2f}\t{given}"
