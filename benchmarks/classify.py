"""One training step of a text classifier, the recipe classify, beside the same network in plain PyTorch.

    regard bench classify --out benchmarks/results/classify.json

A step is forward, backward, clipped gradients and Adam: 64 texts of about the same length, given word vectors and
learned ones beside them, a GRU of 64 units in both directions, four heads. The plain network is as such classifiers
are commonly written: `nn.Embedding`, packed sequences through a bidirectional `nn.GRU`, additive attention by
broadcasting with a softmax over `masked_fill`, `torch.bmm`, and `torch.optim.Adam`. Nothing is dropped, so that before
anything is timed both must get the same loss and the same gradients from the same weights. The limit is the time of the
matrix products of our own step alone, recorded while it runs and run again with nothing in between.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import harness
import torch
import torch.nn.functional as F
from draw import products
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from regard.app.data.labelled import no_texts
from regard.app.data.splits import Splits
from regard.app.text.vectors import Lexicon
from regard.app.text.vocabulary import SPECIAL, Words
from regard.recipes import classify

BATCH, KNOWN, WORDS, WIDTH, HIDDEN, HEADS, CLASSES = 64, 8_000, 40_000, 50, 64, 4, 6
CASES = {"sentences of 10 words": 10, "sentences of 22 words": 22, "texts of 100 words": 100}


class Plain(nn.Module):
    """Soft attention by some heads over a bidirectional GRU, as it is commonly written."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given = nn.Embedding.from_pretrained(given)
        self.learned = nn.Embedding(KNOWN, WIDTH)
        self.gru = nn.GRU(2 * WIDTH, HIDDEN, batch_first=True, bidirectional=True)
        self.queries = nn.Parameter(torch.empty(HEADS, HIDDEN))
        self.query, self.key = nn.Linear(HIDDEN, HIDDEN, bias=False), nn.Linear(2 * HIDDEN, HIDDEN, bias=False)
        self.energy = nn.Linear(HIDDEN, 1, bias=False)
        self.answer = nn.Linear(HEADS * 2 * HIDDEN, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        mask = words > 0
        vectors = torch.cat([self.given(words), self.learned(words)], -1)
        packed = pack_padded_sequence(vectors, mask.sum(1), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        hidden = torch.tanh(self.query(self.queries)[None, :, None] + self.key(states)[:, None])
        scores = self.energy(hidden).squeeze(3).masked_fill(~mask[:, None], -math.inf)
        read = torch.bmm(torch.softmax(scores, 2), states)
        return self.answer(read.flatten(1))

    def pairs(self, ours: classify.Model) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Our parameters, each with the one that is the same here."""
        mine, score = ours.encoder.both, ours.attention.score
        found: list[tuple[nn.Parameter, nn.Parameter]] = [(ours.queries, self.queries)]  # pyright: ignore
        for end, layer in (("", mine.forth), ("_reverse", mine.back)):
            found += [(weights, getattr(self.gru, f"{name}{end}")) for name, weights in layer.named_parameters()]
        layers: dict[Any, nn.Module] = {
            score.query: self.query,
            score.key: self.key,
            score.energy: self.energy,
            ours.answer: self.answer,
        }
        layers[ours.vectors.learned] = self.learned
        for one, other in layers.items():
            found += zip(one.parameters(), other.parameters(), strict=True)
        return found


def models() -> tuple[classify.Model, Plain]:
    """Ours and the plain network, of the same weights."""
    sizes: Any = {"hidden": HIDDEN, "scoring": HIDDEN, "heads": HEADS, "batch": BATCH}
    config = classify.Config(vectors="drawn", dropout=0.0, word_dropout=0.0, **sizes)
    lexicon = Lexicon(Words([str(n) for n in range(WORDS - len(SPECIAL))]), KNOWN, torch.randn(WORDS, WIDTH))
    none = no_texts(lexicon)
    ours = classify.Model(config, Splits(none, none, none, "", tuple("abcdefghij"[:CLASSES])))
    plain = Plain(lexicon.vectors)
    with torch.no_grad():
        for mine, theirs in plain.pairs(ours):
            theirs.copy_(mine)
    return ours, plain


def examples(length: int) -> dict[str, Tensor]:
    """Texts that are at most a fifth shorter than this, and their labels."""
    lengths = torch.randint(length - length // 5, length + 1, (BATCH, 1))
    lengths[0] = length
    words = torch.randint(len(SPECIAL), KNOWN, (BATCH, length)) * (torch.arange(length) < lengths)
    return {"words": words, "label": torch.randint(CLASSES, (BATCH,))}


def losses(ours: classify.Model, plain: Plain, batch: dict[str, Tensor]) -> tuple[Callable[[], Tensor], ...]:
    """What each makes smaller."""
    return (
        lambda: classify.loss(ours, batch)[0],
        lambda: F.cross_entropy(plain(batch["words"]), batch["label"]),
    )


def check(length: int) -> None:
    """Both get the same loss and the same gradients from the same weights."""
    ours, plain = models()
    found = [loss() for loss in losses(ours, plain, examples(length))]
    torch.testing.assert_close(*found, rtol=1e-5, atol=0)
    for each in found:
        each.backward()
    for mine, theirs in plain.pairs(ours):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-6)


PEER = "packed nn.GRU, additive attention by broadcasting, bmm; Adam"
LIMIT = "the matrix products of our step by the plain road, forward and backward, run alone"


def measure(rounds: int) -> Iterable[harness.Row]:
    """A row for each length, after the checks."""
    torch.manual_seed(0)
    for name, length in CASES.items():
        check(length)
        ours, plain = models()
        mine, theirs = losses(ours, plain, examples(length))
        how = torch.optim.Adam, 3.0
        step, other = harness.training(ours, mine, *how, fused=True), harness.training(plain, theirs, *how)
        bound, gflop = products(step)
        yield harness.compare(f"a training step, {name}", PEER, step, other, bound, LIMIT, BATCH, rounds, gflop)


if __name__ == "__main__":
    harness.main("classify", measure)
