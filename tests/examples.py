"""THE table: every score, over, read and mask with small arguments. Every law runs over every row that it speaks of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import regard as rg

B, Q, K, D, V = 2, 3, 4, 5, 2
INFINITY = float("inf")


def tensors(*shape: int, count: int = 1, scale: float = 1.0) -> tuple[Tensor, ...]:
    """Random tensors in float64."""
    return tuple(scale * torch.randn(*shape, dtype=torch.float64) for _ in range(count))


def inputs(queries: int = Q) -> tuple[Tensor, Tensor, Tensor]:
    """query (B, Q, D), keys (B, K, D) and values (B, K, V)."""
    return *tensors(B, queries, D), *tensors(B, K, D), *tensors(B, K, V)


class Fatigue(rg.Score):
    """Carried by a score: a place is the less attractive the more it has been looked at."""

    def at(self, step: rg.Step):
        return lambda query, keys: rg.dot(query, keys) - (0 if step.carried is None else step.carried.unsqueeze(-2))

    def next(self, carried: Tensor | None, positions: rg.Positions) -> Tensor:
        return positions.mean.sum(-2) + (0 if carried is None else carried)


class ChainOfSteps(nn.Module):
    """A chain with transitions of its own from each position to the next, whatever stands in front of the scores."""

    def __init__(self):
        super().__init__()
        self.links = nn.Parameter(torch.linspace(-1, 1, 6 * K * K, dtype=torch.float64).view(6, K, K).sin())

    def forward(self, scores: Tensor, mask: Tensor | None = None) -> rg.Positions:
        links = self.links[: max(scores.shape[-2] - 1, 0)]
        return rg.chain(links[(None,) * (scores.dim() - 2)])(scores, mask)


class SpansOfSteps(nn.Module):
    """A semi-Markov chain with scores of spans by where they begin, whatever stands in front of the scores."""

    def __init__(self):
        super().__init__()
        self.spans = nn.Parameter(torch.linspace(-1, 1, 7 * 2 * K, dtype=torch.float64).view(7, 2, K).sin())

    def forward(self, scores: Tensor, mask: Tensor | None = None) -> rg.Positions:
        spans = self.spans[: scores.shape[-2]][(None,) * (scores.dim() - 2)]
        return rg.semi_markov(2, torch.zeros(K, K, dtype=scores.dtype), spans)(scores, mask)


LINKS = [0.3, -0.8, 0.1, 0.6], [-0.5, 0.9, 0.2, -0.1], [0.7, 0.0, -0.6, 0.4], [-0.2, 0.5, 0.8, -0.9]


def parameter(*values: float | list[float]) -> nn.Parameter:
    """A parameter of one number or several, in float64."""
    return nn.Parameter(torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64))


SCORES: dict[str, Callable[[], Any]] = {
    "dot": lambda: rg.dot,
    "scaled_dot": lambda: rg.scaled_dot,
    "cosine": lambda: rg.Cosine(sharpness=2.0),
    "cosine, learned sharpness": lambda: rg.Cosine(nn.Parameter(torch.tensor(2.0, dtype=torch.float64))),
    "content": lambda: rg.Content(D, D).double(),
    "additive": lambda: rg.Additive(D, D, 6).double(),
    "bilinear": lambda: rg.Bilinear(D, D).double(),
    "location": lambda: rg.Location(D, K + 2).double(),
    "biased": lambda: rg.biased(rg.scaled_dot, nn.Parameter(torch.randn(Q, K, dtype=torch.float64))),
    "biased additive": lambda: rg.biased(rg.Additive(D, D, 6).double(), torch.linspace(0, 1, K, dtype=torch.float64)),
    "fatigue": Fatigue,
    "coverage": lambda: rg.Coverage(D, D, 6).double(),
    "location-aware": lambda: rg.LocationAware(D, D, 6, filters=3, width=3).double(),
    "location-aware, summed": lambda: rg.LocationAware(D, D, 6, filters=3, width=5, summed=True).double(),
}

OVERS: dict[str, Callable[[], Any]] = {
    "softmax": lambda: rg.softmax,
    "sparsemax": lambda: rg.sparsemax,
    "entmax(1)": lambda: rg.entmax(1.0),
    "entmax(1.3)": lambda: rg.entmax(1.3),
    "entmax(1.5)": lambda: rg.entmax(1.5),
    "entmax(2)": lambda: rg.entmax(2.0),
    "entmax, learned alpha": lambda: rg.entmax(nn.Parameter(torch.tensor(1.4, dtype=torch.float64))),
    "top_k(2)": lambda: rg.top_k(2),
    "sigmoid": lambda: rg.sigmoid,
    "subset(1)": lambda: rg.subset(1),
    "subset(2)": lambda: rg.subset(2),
    "subset(9)": lambda: rg.subset(9),
    "budget of a subset": lambda: rg.budget(rg.subset(3), 0.5),
    "without_replacement(2)": lambda: rg.without_replacement(2),
    "local-m": lambda: rg.local(1),
    "local-p": lambda: rg.local(1, centre=rg.Predicted(D, 6).double()),
    "monotonic": lambda: rg.monotonic(noise=0.5),
    "monotonic, learned bias": lambda: rg.monotonic(bias=nn.Parameter(torch.tensor(-0.5, dtype=torch.float64))),
    "monotonic(2)": lambda: rg.monotonic(2),
    "monotonic(3)": lambda: rg.monotonic(3, score=rg.Location(D, K + 2).double()),
    "monotonic(None)": lambda: rg.monotonic(None, noise=0.5),
    "segments": lambda: rg.segments(1.5),
    "segments, learned stay": lambda: rg.segments(parameter(-0.7)),
    "chain": lambda: rg.chain(parameter(*LINKS), parameter(0.2, -0.4, 0.9, 0.0), parameter(-0.3, 0.5, 0.0, 0.8)),
    "chain, each step": ChainOfSteps,
    "chain, constrained": lambda: rg.chain(parameter(*LINKS), constraints=rg.bio(["B-X", "I-X", "O", "B-Y"])),
    "semi_markov": lambda: rg.semi_markov(
        2, parameter(*LINKS), parameter([0.4, -0.2, 0.0, 0.3], [0.1, 0.7, -0.5, 0.2])
    ),
    "semi_markov, spans": SpansOfSteps,
    "ctc": lambda: rg.ctc([1]),
    "tree": lambda: rg.tree(),
    "tree, several roots": lambda: rg.tree(single_root=False),
    "tree, non-projective": lambda: rg.tree(projective=False),
    "tree, non-projective, several roots": lambda: rg.tree(projective=False, single_root=False),
    "constituency": lambda: rg.constituency(),
    "addressing": lambda: rg.addressing(D).double(),
    "addressing, not circular": lambda: rg.addressing(D, width=4, circular=False).double(),
    "dropout": lambda: rg.dropout(rg.softmax, 0.5).eval(),
}

READS: dict[str, Callable[[], Any]] = {
    "mean": lambda: rg.mean,
    "sample": lambda: rg.sample,
    "mode": lambda: rg.mode,
    "hard": lambda: rg.hard,
    "online": lambda: rg.online,
    "straight_through": lambda: rg.straight_through,
    "relaxed": lambda: rg.relaxed(0.7),
}

DOCUMENTS = torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1]]), torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2]])

MASKS: dict[str, Callable[..., Tensor | None]] = {
    "none": lambda queries=Q: None,
    "padding": lambda queries=Q: rg.padding(torch.tensor([1, 3]), K),
    "nothing to see": lambda queries=Q: rg.padding(torch.tensor([0, K]), K),
    "causal": lambda queries=Q: rg.causal(queries, K),
    "window": lambda queries=Q: rg.window(2, queries, K),
    "document": lambda queries=Q: rg.document(DOCUMENTS[0][:, :queries], DOCUMENTS[1]),
    "combined": lambda queries=Q: (
        rg.causal(queries, K) & ~rg.padding(torch.tensor([1, 0]), K) | rg.window(1, queries, K)
    ),
}


def gaussian_grid(size: int) -> rg.GaussianGrid:
    """Two windows on an image of 4 x 5 pixels, one partly outside of it."""
    centre, width = tensor([0.2, -0.3], [-0.9, 1.3]), tensor([0.3, 0.4], [0.2, 0.7])
    return rg.GaussianGrid(centre, tensor([0.5], [0.8]), width, size, (4, 5))


def pointer(scores: Tensor) -> rg.Pointer:
    """A pointer with scores (*B, Q, 4), Q up to 3: some of its moves lead to one place, and some nowhere."""
    targets = torch.tensor([[1, 3, 1, -1], [2, 0, 0, 3], [-1, -1, 2, 2]])[: scores.shape[-2]]
    return rg.Pointer(scores=scores, targets=targets.expand(scores.shape), count=K)


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def queries(over: str) -> int:
    """How many queries a row is asked: those of a tree are its words, and so are the keys."""
    return K if over.startswith(("tree", "constituency")) else Q


def positions(over: Any, scores: Tensor, mask: Tensor | None = None) -> rg.Positions:
    """The distribution that an over makes of scores (*B, Q, K), at the first step, outside of training."""
    query, keys = torch.ones(*scores.shape[:-1], D).to(scores), torch.ones(*scores.shape[:-2], scores.shape[-1], D)
    return at(over, rg.Step(query, keys.to(scores), mask, training=False))(scores, mask)


def at(part: Any, step: rg.Step) -> Any:
    return part.at(step) if hasattr(part, "at") else part
