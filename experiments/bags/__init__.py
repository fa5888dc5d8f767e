"""Says whether there is a nine in a bag of digits, of which it is never told which that is.

Ilse, Tomczak and Welling 2018, "Attention-based deep multiple instance learning", section 4.2: a bag holds about ten
digits. `mil` weighs them by equation 8, `gated-mil` by equation 9, and `mean` all alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn

import regard as rg
from regard.app import flags
from regard.app.data.mnist import find
from regard.app.data.splits import Splits, hold_out
from regard.app.text.captioning import alike
from regard.app.vision.sampled import Gated, PatchNetwork
from regard.recipes.base import Metric

METRIC = Metric("valid_cost", "min", "cross-entropy on the validation bags", unit="nats")
NAMED_BY = ("attention",)

POSITIVE, SIZE, SPREAD = 9, 10.0, 2.0
"""The digit that is looked for; the mean of the digits of a bag, and their standard deviation."""


@dataclass
class Config:
    """What a run is a function of."""

    seed: int = 0
    """Of the weights and the training bags."""
    data: str = "embedded"
    """Of the digits: embedded, hub, or a folder of MNIST's files."""
    attention: Literal["mil", "gated-mil", "mean"] = "gated-mil"
    """How the digits of a bag are weighed."""
    bags: int = 200
    """Bags to learn from, always the same."""
    features: int = 64
    """Numbers that describe a digit."""
    epochs: int = 25
    """Times all bags are learned from."""
    batch: int = 8
    """Bags of a step."""
    learning_rate: float = 2e-3
    """The highest; it rises over a tenth of the steps, and then falls to zero by a cosine."""

    def __post_init__(self) -> None:
        flags.check_training(self, "bags", "features")


class Bags:
    """Bags of digits drawn with a seed, as a split.

    A batch has `digits` (B, N, 28, 28) in [0, 1]; `there` (B, N), false where a bag has no more; `nine` (B, N); and
    `label` (B,), one where any of them is.
    """

    def __init__(self, images: UInt8[Tensor, "M 28 28"], labels: Integer[Tensor, " M"], count: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        sizes = (SIZE + SPREAD * torch.randn(count, generator=generator)).round().clamp(min=1).long()
        longest = int(sizes.max()) if count else 1
        self.images, self.labels = images, labels
        self.which = torch.randint(max(len(labels), 1), (count, longest), generator=generator)
        self.there = torch.arange(longest) < sizes.unsqueeze(1)

    def __len__(self) -> int:
        return len(self.which)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The bags at `indices`; nothing in them is random."""
        which, there = self.which[indices], self.there[indices]
        nine = (self.labels[which] == POSITIVE) & there
        digits = self.images[which].float() / 255 * there[..., None, None]
        return {"digits": digits, "there": there, "nine": nine, "label": nine.any(1).long()}


def data(config: Config) -> Splits:
    """Bags of the training digits, 200 of a tenth that is held out to choose by, and 1,000 of the test digits."""
    found, source = find(config.data)
    train, valid = hold_out(found.labels)
    return Splits(
        Bags(found.images[train], found.labels[train], config.bags, 1000 + config.seed),
        Bags(found.images[valid], found.labels[valid], 200, 1),
        Bags(found.test_images, found.test_labels, 1000, 2),
        f"{source}: {config.bags:,} bags of about {SIZE:.0f}",
        ("without", "with"),
    )


def known(config: Config, weights: Mapping[str, Tensor]) -> Splits:
    """No bags."""
    none = Bags(torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.long), 0, 0)
    return Splits(none, none, none, "", ("without", "with"))


class Model(nn.Module):
    """What is in each digit, and of that the mean by an attention, is judged."""

    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        size = config.features
        self.network, self.judge = PatchNetwork(1, size), nn.Linear(size, 1)
        scores: dict[str, Any] = {"mil": rg.Additive(1, size, size), "gated-mil": Gated(size, size), "mean": alike}
        self.attention = rg.Attention(score=scores[config.attention], over=rg.softmax, read=rg.mean)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B,) of that there is a nine, and what each digit counts, (B, N)."""
        there = batch["there"]
        found = self.network(batch["digits"][there].unsqueeze(1))
        digits = found.new_zeros(*there.shape, found.shape[1]).index_put((there,), found)  # (B, N, D)
        memory = self.attention.prepare(digits, digits, there.unsqueeze(1))
        out = self.attention(digits.new_zeros(len(digits), 1, 1), memory)
        return self.judge(out.context).flatten(), out.weights.squeeze(1)


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy."""
    return F.binary_cross_entropy_with_logits(model(batch)[0], batch["label"].float()), {}


@torch.no_grad()
def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each bag: whether it was answered wrongly, its cost, its score and its label; and of those with a nine the
    weight of their nines."""
    score, weights = model(batch)
    label = batch["label"].float()
    return {
        "error": ((score > 0) != (label > 0)).float(),
        "cost": F.binary_cross_entropy_with_logits(score, label, reduction="none"),
        "score": score,
        "label": label,
        "pointing": (weights * batch["nine"]).sum(1)[label > 0],
    }


def auc(score: Float[Tensor, " N"], label: Float[Tensor, " N"]) -> float:
    """The area under the curve of true by false positives: how often one with label 1 has a higher score than one with
    label 0, equal ones counting half.

    >>> auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    0.75
    """
    apart = score[label > 0].unsqueeze(1) - score[label == 0]
    return float((apart.sign().double() + 1).mean() / 2)
