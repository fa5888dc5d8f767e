"""A recipe small enough to train in a blink, in which all that a checkpoint must hold matters.

Points of three classes, jittered afresh in each batch; a linear classifier with dropout; a baseline that is a buffer,
carried from step to step, and has a part in the gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regard.app.data.splits import Splits
from regard.recipes.base import Metric

METRIC = Metric("valid_error", "min", "share of the points answered wrongly")


@dataclass
class Config:
    seed: int = 0
    data: str = "embedded"
    epochs: int = 3
    batch: int = 8
    learning_rate: float = 0.05
    dropout: float = 0.3
    poison: int = -1
    """The step whose loss is not a number; none if negative."""


class Split:
    def __init__(self, count: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(3, (count,), generator=generator)
        centres = torch.tensor([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        self.points = centres[self.labels] + 0.8 * torch.randn(count, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        points = self.points[indices]
        if generator is not None:
            points = points + 0.1 * torch.randn(points.shape, generator=generator)
        return {"points": points, "labels": self.labels[indices], "indices": indices}


def data(config: Config) -> Splits:
    return Splits(Split(51, 1), Split(21, 2), Split(10, 3), "82 points of three classes")


class Model(nn.Module):
    average: Tensor
    steps: Tensor

    def __init__(self, config: Config, splits: Splits):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.dropout = nn.Dropout(config.dropout)
        self.poison = config.poison
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, points: Tensor) -> Tensor:
        return self.linear(self.dropout(points))


def loss(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    logits = model(batch["points"])
    cost = nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
    advantage = (cost - model.average).detach()
    total = (cost + 0.1 * advantage * logits.logsumexp(-1)).mean()
    if model.steps == model.poison:
        total = total * torch.nan
    model.average = torch.lerp(cost.detach().mean().float(), model.average, 0.9)
    model.steps = model.steps + 1
    return total, {"error": (logits.argmax(-1) != batch["labels"]).float().mean(), "average": model.average}


def evaluate(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    logits = model(batch["points"])
    surprise = nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
    chance = torch.rand(len(logits), device=logits.device)
    return {"error": (logits.argmax(-1) != batch["labels"]).float(), "loss": surprise, "chance": chance}


def optimiser(model: Model, config: Config, steps: int):
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, steps)
