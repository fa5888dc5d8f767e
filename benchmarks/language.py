"""One training step of a language model, the recipe language, beside the same network in plain PyTorch.

    regard bench language --out benchmarks/results/language.json

A step is forward, backward, clipped gradients and AdamW: 32 streams of 35 words, of a vocabulary of 16,383, an LSTM of
256 units, the words told from 1,000 samples. The plain network is as such models are commonly written: `nn.LSTM`, the
last states sought by `torch.bmm` over all states, of which `masked_fill` leaves those in the window, and
`torch.optim.AdamW`. Nothing is dropped, and both are given the same samples, so that before anything is timed both must
get the same loss and the same gradients from the same weights. The limit is the time of the matrix products of our own
step alone, recorded while it runs and run again with nothing in between.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import harness
import torch
import torch.nn.functional as F
from draw import products
from torch import Tensor, nn

from regard.app.data.running import Passages, Streams
from regard.app.data.splits import Splits
from regard.app.text.vocabulary import SPECIAL, Words
from regard.recipes import language

ROWS, STEPS, WORDS, SIZE, SAMPLES = 32, 35, 16_383, 256, 1_000
CASES = {"no attention": 0, "the last 30 states": 30, "the last 100 states": 100}


class Plain(nn.Module):
    """An LSTM that looks back at its last states by the cosine, as it is commonly written."""

    def __init__(self, window: int, chances: Tensor) -> None:
        super().__init__()
        self.window, self.chances = window, chances
        self.vectors, self.lstm = nn.Embedding(WORDS, SIZE), nn.LSTM(SIZE, SIZE, batch_first=True)
        self.told, self.read = nn.Linear(SIZE, SIZE, bias=False), nn.Linear(SIZE, SIZE)
        self.sharpness, self.bias = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.zeros(WORDS))

    def forward(self, words: Tensor, target: Tensor, past: Tensor) -> Tensor:
        states, _ = self.lstm(self.vectors(words))
        known = self.told(states)
        if self.window:
            keys = torch.cat([past, states], 1)
            length = states.shape[1]
            row, column = torch.arange(length)[:, None], torch.arange(length + self.window)[None]
            seen = (column >= self.window) & (column < row + self.window) & (column >= row)
            scores = self.sharpness * torch.bmm(F.normalize(states, dim=2), F.normalize(keys, dim=2).transpose(1, 2))
            weights = torch.softmax(scores.masked_fill(~seen, -math.inf), 2)
            weights = weights.masked_fill(~seen.any(1, keepdim=True), 0)
            known = known + self.read(torch.bmm(weights, keys))
        return self.cost(torch.tanh(known).flatten(0, 1), target.flatten())

    def cost(self, known: Tensor, target: Tensor) -> Tensor:
        """Of the words, told from samples."""
        others = torch.multinomial(self.chances, SAMPLES, replacement=True)
        right = (known * self.vectors(target)).sum(1) + self.bias[target]
        wrong = torch.matmul(known, self.vectors(others).transpose(0, 1)) + self.bias[others]
        wrong = wrong - torch.log(SAMPLES * self.chances[others])
        wrong = wrong.masked_fill(others[None] == target[:, None], -math.inf)
        logits = torch.cat([right[:, None], wrong], 1)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

    def pairs(self, ours: language.Model) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Our parameters, each with the one that is the same here."""
        layers: list[tuple[Any, Any]] = [(ours.vectors, self.vectors), (ours.lstm, self.lstm), (ours.told, self.told)]
        found: list[tuple[nn.Parameter, nn.Parameter]] = [(ours.guesses.bias, self.bias)]
        if ours.back is not None:
            layers.append((ours.read, self.read))
            found.append((ours.back.attention.score.sharpness, self.sharpness))
        for one, other in layers:
            found += zip(one.parameters(), other.parameters(), strict=True)
        return found


def models(window: int) -> tuple[language.Model, Plain]:
    """Ours and the plain network, of the same weights."""
    sizes: Any = {"size": SIZE, "samples": SAMPLES, "batch": ROWS, "steps": STEPS, "window": max(1, window)}
    config = language.Config(attention="cosine" if window else "none", dropout=0.0, **sizes)
    vocabulary = Words([str(n) for n in range(WORDS - len(SPECIAL))])
    numbers = torch.randint(len(SPECIAL), WORDS, (2 * ROWS * STEPS,))
    none = Passages(numbers[:1], STEPS, 1, vocabulary)
    ours = language.Model(config, Splits(Streams(numbers, ROWS, STEPS), none, none, ""))
    plain = Plain(window, ours.guesses.chances)
    with torch.no_grad():
        for mine, theirs in plain.pairs(ours):
            theirs.copy_(mine)
    return ours, plain


def losses(ours: language.Model, plain: Plain) -> tuple[Callable[[], Tensor], ...]:
    """What each makes smaller, of a piece with which streams begin."""
    words = torch.randint(len(SPECIAL), WORDS, (ROWS, STEPS + 1))
    batch = {"words": words[:, :-1], "target": words[:, 1:], "first": torch.ones(ROWS, dtype=torch.bool)}
    past = torch.zeros(ROWS, plain.window, SIZE)
    return lambda: language.loss(ours, batch)[0], lambda: plain(batch["words"], batch["target"], past)


def check(window: int) -> None:
    """Both get the same loss and the same gradients from the same weights and samples."""
    ours, plain = models(window)
    found = []
    for loss in losses(ours, plain):
        torch.manual_seed(1)
        found.append(loss())
    torch.testing.assert_close(*found, rtol=1e-5, atol=0)
    for each in found:
        each.backward()
    for mine, theirs in plain.pairs(ours):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-6)


PEER = "nn.LSTM, bmm over all states, masked_fill, softmax; AdamW"
LIMIT = "the matrix products of our step by the plain road, forward and backward, run alone"


def measure(rounds: int) -> Iterable[harness.Row]:
    """A row for each window, after the checks."""
    torch.manual_seed(0)
    for name, window in CASES.items():
        check(window)
        ours, plain = models(window)
        mine, theirs = losses(ours, plain)
        how = torch.optim.AdamW, 1.0
        step, other = harness.training(ours, mine, *how, fused=True), harness.training(plain, theirs, *how)
        bound, gflop = products(step)
        yield harness.compare(f"a training step, {name}", PEER, step, other, bound, LIMIT, ROWS * STEPS, rounds, gflop)


if __name__ == "__main__":
    harness.main("language", measure)
