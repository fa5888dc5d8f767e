"""One training step of a classifier that chooses its words, the recipe rationale, beside the same in plain PyTorch.

    regard bench rationale --out benchmarks/results/rationale.json

A step is forward, backward, clipped gradients and Adam: 16 texts, given word vectors and learned ones beside them,
words scored with two neighbours on either side, 15 % of them drawn eight times and compared with each other. The plain
network is as such classifiers are commonly written: `nn.Embedding`, `nn.Conv1d`, a threshold by sorting and Bernoulli
draws for `sigmoid`; for `segments` the algorithms of a linear chain (Viterbi, forward filtering and backward sampling)
in a loop over the words with all texts side by side; and `torch.optim.Adam`. Nothing is dropped, so that before
anything is timed both must get the same loss and the same gradients from the same weights and draws. The limit is the
time of the products of a step alone: by which words are scored and draws are read, forward and backward.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import harness
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.app.data.rationales import no_rationales
from regard.app.data.splits import Splits
from regard.app.text.vectors import Lexicon
from regard.app.text.vocabulary import SPECIAL, Words
from regard.recipes import rationale

BATCH, KNOWN, WORDS, WIDTH, UNITS, REACH, DRAWS, SHARE, STAY = 16, 8_000, 40_000, 50, 64, 2, 8, 0.15, 4.0
CASES = {"sigmoid, 200 words": ("sigmoid", 200), "sigmoid, 800 words": ("sigmoid", 800),
         "segments, 200 words": ("segments", 200)}  # fmt: skip
HALVINGS, SPREAD = 20, 2.0


class Plain(nn.Module):
    """Words that are chosen and then read alone, as it is commonly written."""

    def __init__(self, over: str, given: Tensor) -> None:
        super().__init__()
        self.over = over
        self.given = nn.Embedding.from_pretrained(given)
        self.learned = nn.Embedding(KNOWN, WIDTH)
        self.window = nn.Conv1d(WIDTH, UNITS, 2 * REACH + 1, padding=REACH)
        self.energy = nn.Linear(UNITS, 1, bias=False)
        self.answer = nn.Linear(2 * WIDTH, 2)

    def forward(self, words: Tensor, label: Tensor, z: Tensor | None = None) -> Tensor:
        """The loss, of draws (S, B, K) if they are given."""
        given = self.given(words)
        vectors = torch.cat((given, self.learned(words)), -1)
        scores = self.energy(torch.tanh(self.window(given.mT)).mT).squeeze(-1)
        scores = SPREAD * (scores - scores.mean(1, keepdim=True)) / scores.std(1, correction=0, keepdim=True)
        scores = scores - (self.ranked(scores) if self.over == "sigmoid" else self.priced(scores))
        if z is None:
            z = self.drawn(scores.detach())
        read = torch.einsum("sbk,bkd->sbd", z, vectors) / z.sum(-1, keepdim=True).clamp(min=1)
        costs = F.cross_entropy(self.answer(read).flatten(0, 1), label.repeat(DRAWS), reduction="none").view(DRAWS, -1)
        baseline = (costs.sum(0) - costs) / (DRAWS - 1)
        log_prob = self.log_prob(scores, z)
        surrogate = (costs - baseline).detach() * (log_prob - log_prob.detach())
        return costs.mean() + 0.5 * F.cross_entropy(self.answer(vectors.mean(1)), label) + surrogate.mean()

    def ranked(self, scores: Tensor) -> Tensor:
        """Between the last word that is taken and the next."""
        best, room = scores.detach().sort(descending=True).values, int(SHARE * scores.shape[1] + 1e-9)
        return best[:, room - 1 : room + 1].mean(1, keepdim=True)

    @torch.no_grad()
    def priced(self, scores: Tensor) -> Tensor:
        """The least price by which the best labelling takes no more words than there is room for."""
        room, reach = int(SHARE * scores.shape[1] + 1e-9), 1 + 2 * STAY
        low, high = scores.amin(1, keepdim=True) - reach, scores.amax(1, keepdim=True) + reach
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            many = self.viterbi(scores - middle).sum(1, keepdim=True) > room
            low, high = torch.where(many, middle, low), torch.where(many, high, middle)
        return high

    def viterbi(self, scores: Tensor) -> Tensor:
        """The best labelling (B, K)."""
        best, origins = torch.stack((torch.zeros_like(scores[:, 0]), scores[:, 0]), 1), []
        links = STAY * torch.eye(2)
        for score in scores.unbind(1)[1:]:
            best, origin = (best.unsqueeze(2) + links).max(1)
            best = best + torch.stack((torch.zeros_like(score), score), 1)
            origins.append(origin)
        labels = [best.argmax(1)]
        for origin in reversed(origins):
            labels.append(origin.gather(1, labels[-1].unsqueeze(1)).squeeze(1))
        return torch.stack(labels[::-1], 1)

    def filtered(self, scores: Tensor) -> list[Tensor]:
        """The logarithms of the sums over all labellings up to each word, (B, 2) each."""
        reached = [torch.stack((torch.zeros_like(scores[:, 0]), scores[:, 0]), 1)]
        links = STAY * torch.eye(2, dtype=scores.dtype)
        for score in scores.unbind(1)[1:]:
            ahead = (reached[-1].unsqueeze(2) + links).logsumexp(1)
            reached.append(ahead + torch.stack((torch.zeros_like(score), score), 1))
        return reached

    def drawn(self, scores: Tensor) -> Tensor:
        """Labellings (S, B, K)."""
        if self.over == "sigmoid":
            return torch.bernoulli(scores.sigmoid().expand(DRAWS, -1, -1))
        links, after, labels = STAY * torch.eye(2), torch.zeros(DRAWS, len(scores), 2), []
        for reached in reversed(self.filtered(scores)):
            label = torch.bernoulli((reached + after).softmax(-1)[..., 1]).long()
            after = links[label]
            labels.append(label)
        return torch.stack(labels[::-1], -1).float()

    def log_prob(self, scores: Tensor, z: Tensor) -> Tensor:
        """Of labellings (S, B, K)."""
        if self.over == "sigmoid":
            return -F.binary_cross_entropy_with_logits(scores.expand_as(z), z, reduction="none").sum(-1)
        scores = scores.double()  # the logarithms of sums over many words are large, and differ by little
        score = (z * scores).sum(-1) + STAY * (z[..., 1:] == z[..., :-1]).sum(-1)
        return (score - self.filtered(scores)[-1].logsumexp(1)).to(z.dtype)

    def pairs(self, ours: rationale.Model) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Our parameters, each with the one that is the same here."""
        layers: dict[Any, nn.Module] = {
            ours.vectors.learned: self.learned,
            ours.score.window: self.window,
            ours.score.energy: self.energy,
            ours.answer: self.answer,
        }
        return [
            pair for one, other in layers.items() for pair in zip(one.parameters(), other.parameters(), strict=True)
        ]


def models(over: str) -> tuple[rationale.Model, Plain]:
    """Ours and the plain network, of the same weights."""
    sizes: Any = {"over": over, "units": UNITS, "reach": REACH, "draws": DRAWS, "share": SHARE, "stay": STAY}
    config = rationale.Config(vectors="drawn", dropout=0.0, soft=0.0, width=SPREAD, **sizes)
    lexicon = Lexicon(Words([str(n) for n in range(WORDS - len(SPECIAL))]), KNOWN, torch.randn(WORDS, WIDTH))
    none = no_rationales(lexicon)
    ours, plain = (
        rationale.Model(config, Splits(none, none, none, "", ("against", "for"))),
        Plain(over, lexicon.vectors),
    )
    with torch.no_grad():
        for mine, theirs in plain.pairs(ours):
            theirs.copy_(mine)
    return ours, plain


def examples(length: int) -> dict[str, Tensor]:
    """Texts of this length, and their labels."""
    words = torch.randint(len(SPECIAL), KNOWN, (BATCH, length))
    return {"words": words, "label": torch.randint(2, (BATCH,))}


def check(over: str, length: int) -> None:
    """Both get the same loss and the same gradients from the same weights and draws."""
    ours, plain = models(over)
    batch, seed = examples(length), torch.random.get_rng_state()
    z = ours(batch).chosen.transpose(0, 1)
    torch.random.set_rng_state(seed)  # for the same draws
    found = [rationale.loss(ours, batch)[0], plain(batch["words"], batch["label"], z)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    for each in found:
        each.backward()
    for mine, theirs in plain.pairs(ours):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def products(length: int) -> tuple[harness.Call, float]:
    """The products of a step alone, and their arithmetic in GFLOP."""
    windows, weight = torch.randn(BATCH * length, WIDTH * (2 * REACH + 1)), torch.randn(WIDTH * (2 * REACH + 1), UNITS)
    scored, draws = windows @ weight, torch.rand(BATCH, DRAWS, length)
    vectors, read = torch.randn(BATCH, length, 2 * WIDTH), torch.randn(BATCH, DRAWS, 2 * WIDTH)
    pairs = [(windows, weight), (windows.T, scored), (draws, vectors), (draws.mT, read)]

    def multiply() -> None:
        for left, right in pairs:
            torch.matmul(left, right)

    return multiply, sum(2 * left.numel() * right.shape[-1] for left, right in pairs) / 1e9


PEER = "nn.Conv1d, the algorithms of a chain in loops over the words; Adam"
LIMIT = "the products of a step, by which words are scored and draws are read, forward and backward, run alone"


def measure(rounds: int) -> Iterable[harness.Row]:
    """A row for each case, after the checks."""
    torch.manual_seed(0)
    for name, (over, length) in CASES.items():
        check(over, length)
        ours, plain = models(over)
        batch = examples(length)
        mine = partial(lambda model, batch: rationale.loss(model, batch)[0], ours, batch)
        theirs, how = partial(plain, batch["words"], batch["label"]), (torch.optim.Adam, 3.0)
        step, other = harness.training(ours, mine, *how, fused=True), harness.training(plain, theirs, *how)
        bound, gflop = products(length)
        yield harness.compare(f"a training step, {name}", PEER, step, other, bound, LIMIT, BATCH, rounds, gflop)


if __name__ == "__main__":
    harness.main("rationale", measure)
