"""One training step of a reader, the recipe read, beside the same network in plain PyTorch.

    regard bench read --out benchmarks/results/read.json

A step is forward, backward, clipped gradients and Adam: 32 stories of about the same length with a question behind
each, given word vectors and learned ones beside them, a GRU of 64 units in each direction, and attention over the names
(`sum`) or over the words (`attentive`). The plain network is as such readers are commonly written: `nn.Embedding`,
packed sequences through a bidirectional `nn.GRU`, scores by `torch.bmm`, a softmax over `masked_fill`, a product with
the names as 0 and 1, and `torch.optim.Adam`. Both learn the answer alone, as the other names of a story are not
commonly learned. Nothing is dropped, so that before anything is timed both must get the same loss and the same
gradients from the same weights. The limit is the time of the matrix products of the plain step alone, recorded while it
runs and run again with nothing in between: those in the loops of our GRU are not seen.
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

from regard.app.data.cloze import MARKERS, no_clozes
from regard.app.data.splits import Splits
from regard.app.text.vectors import Lexicon
from regard.app.text.vocabulary import SPECIAL, Words
from regard.recipes import read

BATCH, KNOWN, WORDS, WIDTH, HIDDEN, NAMES = 32, 8_000, 40_000, 50, 64, 6
CASES = {
    "sum, stories of 100 words": ("sum", 100),
    "sum, stories of 420 words": ("sum", 420),
    "attentive, stories of 420 words": ("attentive", 420),
}


class Plain(nn.Module):
    """A bidirectional GRU over story and question, and one look, as they are commonly written."""

    def __init__(self, given: Tensor, reader: str) -> None:
        super().__init__()
        self.reader = reader
        self.given = nn.Embedding.from_pretrained(given)
        self.learned = nn.Embedding(KNOWN, WIDTH)
        self.markers = nn.Parameter(torch.empty(MARKERS, 2 * WIDTH))
        self.gru = nn.GRU(2 * WIDTH, HIDDEN, batch_first=True, bidirectional=True)
        self.key = nn.Linear(2 * HIDDEN, 2 * HIDDEN, bias=False)
        self.joint = nn.Linear(4 * HIDDEN + 2 * WIDTH, 2 * WIDTH) if reader == "attentive" else None

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        words, names = batch["words"], batch["names"]
        vectors = torch.cat([self.given(words), self.learned(words)], -1)
        vectors = torch.where(names.unsqueeze(-1) >= 0, self.markers[names.clamp(min=0)], vectors)
        packed = pack_padded_sequence(vectors, (words > 0).sum(1), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        rows, blank = torch.arange(len(words)), batch["blank"]
        asked = torch.cat([states[rows, blank - 1, :HIDDEN], states[rows, blank + 1, HIDDEN:]], -1)
        scores = torch.bmm(self.key(states), asked.unsqueeze(2)).squeeze(2)
        inside = torch.arange(words.shape[1]) < batch["story"].unsqueeze(1)
        named = F.one_hot(names + 1, MARKERS + 1)[..., 1:].float() * inside.unsqueeze(2)
        mask = inside if self.joint else named.sum(2) > 0
        weights = torch.softmax(scores.masked_fill(~mask, -math.inf), 1).unsqueeze(1)
        if self.joint is None:
            return torch.bmm(weights, named).squeeze(1)
        seen, saw = torch.bmm(weights, states).squeeze(1), torch.bmm(weights, vectors).squeeze(1)
        found = saw + torch.tanh(self.joint(torch.cat([seen, saw, asked], 1)))
        logits = found @ self.markers.T / math.sqrt(2 * WIDTH)
        return torch.softmax(logits.masked_fill(named.sum(1) == 0, -math.inf), 1)

    def pairs(self, ours: read.Model) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Our parameters, each with the one that is the same here."""
        found: list[tuple[nn.Parameter, nn.Parameter]] = [(ours.markers, self.markers)]
        for end, layer in (("", ours.encoder.forth), ("_reverse", ours.encoder.back)):
            found += [(weights, getattr(self.gru, f"{name}{end}")) for name, weights in layer.named_parameters()]
        layers: list[Any] = [(ours.vectors.learned, self.learned), (ours.attention.score.key, self.key)]
        layers += [(ours.naming.joint, self.joint)] if self.joint else []
        for one, other in layers:
            found += zip(one.parameters(), other.parameters(), strict=True)
        return found


def models(reader: Any) -> tuple[read.Model, Plain]:
    """Ours and the plain network, of the same weights."""
    config = read.Config(
        reader=reader, vectors="drawn", dropout=0.0, names=0.0, pointing=0.0, hidden=HIDDEN, batch=BATCH
    )
    lexicon = Lexicon(Words([str(n) for n in range(WORDS - len(SPECIAL))]), KNOWN, torch.randn(WORDS, WIDTH))
    none = no_clozes(lexicon)
    ours, plain = read.Model(config, Splits(none, none, none, "")), Plain(lexicon.vectors, reader)
    with torch.no_grad():
        for mine, theirs in plain.pairs(ours):
            theirs.copy_(mine)
    return ours, plain


def examples(length: int) -> dict[str, Tensor]:
    """Stories with a question each, at most a fifth shorter than this, and every twelfth word a name."""
    lengths = torch.randint(length - length // 5, length + 1, (BATCH,))
    lengths[0] = length
    present = torch.arange(length) < lengths.unsqueeze(1)
    names = torch.randint(NAMES, (BATCH, length)).where(torch.rand(BATCH, length) < 1 / 12, -1)
    names[:, :NAMES] = torch.arange(NAMES)
    story = lengths - length // 10
    blank = (story + lengths) // 2
    names[torch.arange(BATCH), blank] = -1
    return {
        "words": torch.randint(len(SPECIAL), KNOWN, (BATCH, length)) * present,
        "names": names.where(present, -1),
        "story": story,
        "blank": blank,
        "answer": torch.randint(NAMES, (BATCH,)),
    }


def losses(ours: read.Model, plain: Plain, batch: dict[str, Tensor]) -> tuple[Callable[[], Tensor], ...]:
    """What each makes smaller."""
    return (
        lambda: read.loss(ours, batch)[0],
        lambda: F.nll_loss((plain(batch) + 1e-9).log(), batch["answer"]),
    )


def check(reader: str, length: int) -> None:
    """Both get the same loss and the same gradients from the same weights."""
    ours, plain = models(reader)
    found = [loss() for loss in losses(ours, plain, examples(length))]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    for each in found:
        each.backward()
    for mine, theirs in plain.pairs(ours):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


PEER = "packed nn.GRU, bmm, softmax over masked_fill, names as 0 and 1; Adam"
LIMIT = "the matrix products of the plain step, forward and backward, run alone"


def measure(rounds: int) -> Iterable[harness.Row]:
    """A row for each case, after the checks."""
    torch.manual_seed(0)
    for name, (reader, length) in CASES.items():
        check(reader, length)
        ours, plain = models(reader)
        mine, theirs = losses(ours, plain, examples(length))
        how = torch.optim.Adam, 3.0
        step, other = harness.training(ours, mine, *how, fused=True), harness.training(plain, theirs, *how)
        bound, gflop = products(other)
        yield harness.compare(f"a training step, {name}", PEER, step, other, bound, LIMIT, BATCH, rounds, gflop)


if __name__ == "__main__":
    harness.main("read", measure)
