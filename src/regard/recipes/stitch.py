"""Say whether two pieces of a photograph belong together: by the strip where they meet.

Le and Li 2018, "JigsawNet: shredded image reassembly using convolutional neural network and loop-based composition":
two pieces are laid side by side as proposed, and a network says whether they fit. It need not read the whole, but the
stitching area alone. Here that is found by attention: a small network sees the pair from afar, and says where to look.

- `seam-hard` draws strips and compares how well the pair could be judged by each (`leave_one_out`); later it reads the
  likeliest. `seam-soft` reads the mean of all strips.
- `oracle` is told where the pieces meet; `random` reads a strip anywhere.
- `whole` reads all there is, and `smaller` all of it made so small that it has as many pixels as a strip.

    regard train stitch                                          made-up pictures: a minute
    regard train stitch --data FOLDER --gap 8                    photographs of your own
    regard compare stitch --attentions seam-hard,seam-soft,smaller,whole

To reach: with gaps of 3 pixels 4 % wrong, or 9 % where the wrong piece is from near by, at an eighth of the pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regard as rg
from regard.app import flags
from regard.app.data.joints import ELSEWHERE, HEIGHT, NEAR, TRUE, WIDTH, Joints, joints
from regard.app.data.splits import Splits
from regard.app.facts import Facts
from regard.app.report.report import Picture
from regard.app.report.seam_figures import pair_figure
from regard.app.report.text_figures import png
from regard.app.training.schedules import warmup_cosine
from regard.app.vision.joining import READS, Prediction, inputs, predict, prepare, written  # noqa: F401
from regard.app.vision.seams import APART, COARSE, Finder, Joiner, smaller, starts, strips
from regard.recipes.base import COSTS, Measure, Metric

METRIC = Metric("valid_error", "min", "share of the validation pairs judged wrongly")

NAMED_BY, QUICK = ("attention",), {"epochs": 2}

COLUMNS = (
    Measure("test_error", 100, "test error", "%", "Share of the test pairs judged wrongly, ± {spread}."),
    Measure("test_elsewhere", 100, "elsewhere", "%", "The same where the wrong piece is from anywhere."),
    Measure("test_near", 100, "near", "%", "The same where the wrong piece is from near by."),
    Measure("test_share", 100, "read", "%", "Of the pixels of a pair; the view from afar counts, too."),
    Measure("test_found", 100, "found", "%", "How often the strip that is read has both sides of the gap."),
    *COSTS,
)

KINDS = {
    "seam-hard": "Draws strips in training; later it reads the one where the seam is likeliest.",
    "seam-soft": "Reads the mean of all strips, weighted by where the seam is seen from afar.",
    "oracle": "Reads the strip at the seam, whose place it is told.",
    "whole": "Reads the whole pair.",
    "smaller": "Reads the whole pair, made so small that it has as many pixels as a strip.",
    "random": "Reads a strip anywhere.",
}
SEEKING = ("seam-hard", "seam-soft")


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights, the pairs and the draws."""
    data: str = "generated"
    """generated, which is made up; or a folder of photographs, the first third of which is kept for the test."""
    attention: Literal["seam-hard", "seam-soft", "oracle", "whole", "smaller", "random"] = "seam-hard"
    """What is read of a pair."""
    gap: int = 3
    """Pixels between pieces that belong together."""
    size: int = 16
    """Pixels that a strip is wide."""
    filters: int = 16
    """Of the first layer of the network that judges."""
    prior: Literal["gap", "learned"] = "gap"
    """Whether places without paper are worth to look at before anything is learned."""
    draws: int = 2
    """Strips of a pair that are compared in hard training."""
    entropy: float = 0.005
    """The weight of the entropy of where to look, while strips are drawn."""
    pairs: int = 6400
    """Of an epoch, new ones every time."""
    epochs: int = 12
    """Times so many pairs."""
    batch: int = 64
    """Pairs of a step."""
    learning_rate: float = 3e-3
    """The highest; it rises over a twentieth of the steps, and then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "gap", "size", "filters", "draws", "pairs")
        if not self.gap + 1 < self.size <= WIDTH or self.size % 4:
            expected = f"a multiple of 4 above --gap {self.gap} and one, up to {WIDTH}"
            raise ValueError(f"--size expected {expected}, but got {self.size}")
        if self.draws < 2 and self.attention == "seam-hard":
            raise ValueError(f"--draws expected at least 2, as draws are compared, but got {self.draws}")
        if self.filters % 4:
            raise ValueError(f"--filters expected a multiple of 4, but got {self.filters}")


def data(config: Config) -> Splits:
    """Pairs of pieces of photographs, or of pictures that are made up; those of the test are of other ones."""
    return joints(config.data, config.gap, config.pairs)


def known(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """No pairs."""
    none = Joints([], config.gap, 0)
    return Splits(none, none, none, "")


class Output(NamedTuple):
    """What was found of B pairs, by S draws in training by draws, else S is not there."""

    logits: Tensor
    """That they belong together, (*S, B)."""
    positions: Any
    """Where the seam may be, over K strips, (B, 1); None for those that do not seek it."""
    z: Tensor | None
    """The strips that were drawn, (S, B, 1), or are likeliest, (B, 1)."""
    begin: Tensor
    """The columns where the strips begin that were read, (*S, B); of those that read no strip, 0."""


class Model(nn.Module):
    """What finds the seam of a pair, and what judges it."""

    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        self.config, self.facts = config, Facts()
        self.finder = Finder(HEIGHT, config.size, config.prior == "gap") if config.attention in SEEKING else None
        self.joiner = Joiner(config.filters)

    def forward(self, pair: Tensor, seam: Tensor | None = None) -> Output:
        """Judges pairs (B, 4, y, x); the oracle is told the columns (B,) of their seams."""
        begins = starts(pair.shape[-1], self.config.size).to(pair.device)
        return READERS[self.config.attention](self, pair, begins, seam)


def by_draws(model: Any, pair: Tensor, begins: Tensor, seam: Tensor | None) -> Output:
    """Reads strips that are drawn in training, else the likeliest one."""
    positions = rg.softmax(model.finder(pair))
    z = positions.sample((model.config.draws,)) if model.training else positions.mode
    begin = begins[z.squeeze(-1)]
    seen = strips(pair, begin, model.config.size)
    return Output(model.joiner(seen.flatten(0, -4)).view(begin.shape), positions, z, begin)


def by_mean(model: Any, pair: Tensor, begins: Tensor, seam: Tensor | None) -> Output:
    """Reads the mean of all strips."""
    positions, size = rg.softmax(model.finder(pair)), model.config.size
    windows = pair.unfold(3, size, APART)  # (B, 4, y, K, size)
    seen = torch.einsum("bk,bcyks->bcys", positions.mean.squeeze(1), windows)
    z = positions.mode
    return Output(model.joiner(seen), positions, z, begins[z.squeeze(-1)])


def at_the_seam(model: Any, pair: Tensor, begins: Tensor, seam: Tensor | None) -> Output:
    """Reads the strip at the seam."""
    if seam is None:
        raise ValueError("seam expected the columns where the pairs meet, which the oracle is told, but got none")
    begin = (seam - model.config.size // 2).clamp(0, int(begins[-1]))
    return Output(model.joiner(strips(pair, begin, model.config.size)), None, None, begin)


def anywhere(model: Any, pair: Tensor, begins: Tensor, seam: Tensor | None) -> Output:
    """Reads a strip that is drawn blindly."""
    begin = begins[torch.randint(len(begins), pair.shape[:1], device=pair.device)]
    return Output(model.joiner(strips(pair, begin, model.config.size)), None, None, begin)


def everything(model: Any, pair: Tensor, begins: Tensor, seam: Tensor | None) -> Output:
    """Reads the whole pair, perhaps made smaller."""
    seen = smaller(pair, model.config.size) if model.config.attention == "smaller" else pair
    return Output(model.joiner(seen), None, None, torch.zeros_like(pair[:, 0, 0, 0], dtype=torch.long))


READERS: dict[str, Callable[[Any, Tensor, Tensor, Tensor | None], Output]] = {
    "seam-hard": by_draws,
    "seam-soft": by_mean,
    "oracle": at_the_seam,
    "random": anywhere,
    "whole": everything,
    "smaller": everything,
}


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy, with what trains where strips are drawn, whose value is zero."""
    output, truth = model(batch["pair"], batch["seam"]), batch["label"].float()
    cost = F.binary_cross_entropy_with_logits(output.logits, truth.expand_as(output.logits), reduction="none")
    if model.config.attention != "seam-hard":
        return cost.mean(), {"cost": cost.mean()}
    entropy = output.positions.entropy().mean()
    policy = rg.leave_one_out(output.positions.log_prob(output.z).squeeze(-1), cost.detach())
    return (cost + policy).mean() - model.config.entropy * entropy, {"cost": cost.mean(), "entropy": entropy}


@torch.no_grad()
def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each pair, (B,): the `cost` and the `error`, of which those of pairs that belong together are `missed`, and
    the others `taken_elsewhere` or `taken_near`; the `share` of the pixels that was read, and whether the strip had
    both sides of the gap (`found`)."""
    output, config, kind = model(batch["pair"], batch["seam"]), model.config, batch["kind"]
    wrong = ((output.logits > 0) != batch["label"].bool()).float()
    values = {
        "cost": F.binary_cross_entropy_with_logits(output.logits, batch["label"].float(), reduction="none"),
        "error": wrong,
        "missed": wrong[kind == TRUE],
        "taken_elsewhere": wrong[kind == ELSEWHERE],
        "taken_near": wrong[kind == NEAR],
    }
    width = batch["pair"].shape[-1]
    if config.attention == "whole":
        return values | {"share": torch.ones_like(wrong)}
    afar = (config.attention in SEEKING) / COARSE**2
    values["share"] = torch.full_like(wrong, config.size / width + afar)
    if config.attention == "smaller":
        return values
    left, right = batch["seam"] - config.gap // 2 - 1, batch["seam"] - config.gap // 2 + config.gap
    found = (output.begin <= left) & (right < output.begin + config.size)
    return values | {"found": found.float()}


def conclude(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The means; and where the wrong pieces are from `elsewhere` or `near`, the mean error of both answers."""
    means = {name: total / count for name, (total, count) in sums.items()}
    for kind in ("elsewhere", "near"):
        means[kind] = (means["missed"] + means.pop(f"taken_{kind}")) / 2
    return means


def optimiser(model: nn.Module, config: Config, steps: int) -> tuple[Any, Any]:
    """AdamW with a weight decay of 0.1, its rate rising over a twentieth of the steps and then falling by a cosine."""
    found = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=0.1)
    return found, warmup_cosine(found, steps, steps // 20)


def noun(splits: Splits) -> str:
    """What is judged."""
    return "pair"


@torch.no_grad()
def look(model: Model, batch: dict[str, Tensor]) -> list[Picture]:
    """Each pair, with the strip that was read, and above it how likely the seam is in each."""
    output, config, pictures = model(batch["pair"], batch["seam"]), model.config, []
    weights = None if output.positions is None else output.positions.mean.squeeze(1)
    for n, chance in enumerate(output.logits.sigmoid().tolist()):
        truth = "belong together" if batch["label"][n] else "do not"
        framed = None if config.attention in ("whole", "smaller") else (int(output.begin[n]), config.size)
        figure = pair_figure(batch["pair"][n], framed, None if weights is None else weights[n])
        title = f"{chance:.2f} that they belong together; they {truth}"
        pictures.append(Picture(title, "Two pieces side by side, and where it looked.", png(figure)))
    return pictures
