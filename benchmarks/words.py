"""Words per second of the translator, against the same model in plain PyTorch.

    regard bench words --out benchmarks/results/words.json --figure docs/pictures/words.png

The peer is a loop over the words with `nn.LSTMCell`, whose attention forms all hidden units of all places, and which
decodes a file 64 sentences at a time as they come. Its weights are ours, and so are its losses and translations. It
projects the keys at every word, as PyTorch's tutorial does; "projected once" is the same without that.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import harness
import numpy as np
import torch
from additive import tangents
from harness import Row, compare
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from regard.app.data import Pairs, Splits
from regard.app.text import decoding
from regard.app.text.translating import translated
from regard.app.text.vocabulary import BEGIN, END, Characters
from regard.recipes import translate

BATCH, LENGTHS, HIDDEN, WORDS, SENTENCES = 64, (15, 40, 80), 256, 4000, 1000
PLAIN, ONCE = "plain PyTorch", "plain PyTorch, projected once"
TANGENTS = "as many hyperbolic tangents, and nothing else, of numbers in the first cache"
PRODUCTS = "the matrix products of the output layer and of the decoder's cell alone, for as many words"


def measure(rounds: int) -> Iterable[Row]:
    """A row for each case and peer, in fewer rounds where a call takes long."""
    model = translator()
    for length in LENGTHS:
        yield from attentions(model, length, max(1, rounds * LENGTHS[0] // length))
    for length in LENGTHS[:2]:
        yield steps(model, length, max(1, rounds // 3))
    yield files(model, max(1, rounds // 8))
    yield beams(model, max(1, rounds // 2))


def translator() -> Any:
    """The recipe's model at its comparison size, with random weights; it never ends before it has to."""
    letters = Characters([chr(0x4E00 + n) for n in range(WORDS - 4)])
    config = translate.Config(hidden=HIDDEN, dropout=0.0, batch=BATCH)
    torch.manual_seed(0)
    nothing = Pairs([], [], letters)
    model = translate.Model(config, Splits(nothing, nothing, nothing, ""))
    nn.init.constant_(model.bias[END : END + 1].detach(), -1e4)
    model.longest = lambda source: (source > 0).sum(-1)
    return model.eval()


class Plain(nn.Module):
    """The same model in plain PyTorch, with the weights of ours."""

    def __init__(self, model: Any):
        super().__init__()
        network, size = model.network, model.config.hidden
        score, recurring = network.attention.score, network.carried.weight
        self.words, self.bias, self.encoder, self.start = model.words, model.bias, network.encoder, network.start
        self.query, self.key, self.energy = score.query, score.key, score.energy
        self.cell, self.join = nn.LSTMCell(2 * size, size), nn.Linear(2 * size, size)
        kept, taken, shown, made = range(4)
        rows = torch.cat([torch.arange(size) + size * gate for gate in (taken, kept, made, shown)])
        self.cell.weight_ih.data = torch.cat((network.word.weight, recurring[:, :size]), 1)[rows].detach()
        self.cell.weight_hh.data, self.cell.bias_ih.data = recurring[rows, size:].data, network.word.bias[rows].data
        nn.init.zeros_(self.cell.bias_hh)
        self.join.weight.data = torch.cat((network.seen.weight, network.own.weight), 1).detach()
        self.join.bias.data = network.own.bias.data

    def encoded(self, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The keys (B, K, D), and the first hidden state and cell."""
        lengths = (source > 0).sum(-1)
        packed = pack_padded_sequence(self.vectors(source), lengths, batch_first=True, enforce_sorted=False)
        states, (last, _) = self.encoder(packed)
        hidden, cell = self.start(torch.cat((last[-2], last[-1]), -1)).tanh().chunk(2, -1)
        return pad_packed_sequence(states, batch_first=True)[0], hidden, cell

    def vectors(self, words: Tensor) -> Tensor:
        return self.words(words) * self.words.embedding_dim**0.5

    def attend(self, hidden: Tensor, keys: Tensor, projected: Tensor | None, present: Tensor) -> Tensor:
        """The context (B, D) of a hidden state."""
        if projected is None:
            projected = self.key(keys)
        scores = self.energy(torch.tanh(self.query(hidden).unsqueeze(1) + projected)).squeeze(-1)
        weights = scores.masked_fill(~present, -torch.inf).softmax(-1)
        return torch.bmm(weights.unsqueeze(1), keys).squeeze(1)

    def step(self, word: Tensor, fed: Tensor, state: Any, keys: Tensor, present: Tensor) -> tuple[Tensor, Any]:
        """The features of the next word, and the state."""
        hidden, cell = self.cell(torch.cat((word, fed), -1), state)
        context = self.attend(hidden, keys, None, present)
        return self.join(torch.cat((context, hidden), -1)).tanh(), (hidden, cell)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The scores (B, T, words) of the words of a translation, given those before."""
        keys, *first = self.encoded(source)
        state, present, fed, features = first, source > 0, torch.zeros_like(first[0]), []
        before = torch.cat((torch.full_like(target[:, :1], BEGIN), target[:, :-1]), 1)
        for word in self.vectors(before).unbind(1):
            fed, state = self.step(word, fed, state, keys, present)
            features.append(fed)
        return nn.functional.linear(torch.stack(features, 1), self.words.weight, self.bias)

    @torch.no_grad()
    def greedy(self, source: Tensor, longest: Tensor) -> Tensor:
        """Word after word of all sentences (B, T), until the last has ended."""
        keys, *first = self.encoded(source)
        state, present, fed, found = first, source > 0, torch.zeros_like(first[0]), []
        words, ended = torch.full_like(longest, BEGIN), torch.zeros_like(present[:, 0])
        while not ended.all():
            fed, state = self.step(self.vectors(words), fed, state, keys, present)
            words = nn.functional.linear(fed, self.words.weight, self.bias).argmax(-1)
            found.append(words.where(~ended, END))
            ended |= (words == END) | (longest <= len(found))
        return torch.stack(found, 1)


def attentions(model: Any, length: int, rounds: int) -> Iterable[Row]:
    """The attention of all words of a batch: with the backward, and in decoding."""
    given = torch.randn(2, BATCH, length, HIDDEN)
    plain = Plain(model)
    for backward, name in ((True, "training"), (False, "decoding")):
        ours = partial(looked, our_contexts, model, given, backward)
        count = given[0].numel() * length * (1 + backward)
        bound = partial(tangents(), count, np.linspace(-2, 2, 2048, dtype=np.float32))
        for peer, once in ((PLAIN, False), (ONCE, True)):
            theirs = partial(looked, partial(plain_contexts, once), plain, given, backward)
            for mine, other in zip(ours(), theirs(), strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())
            yield compare(named(name, length), peer, ours, theirs, bound, TANGENTS, BATCH * length, rounds)


def named(what: str, length: int) -> str:
    return f"attention in {what}, batch {BATCH}, {length} words of {length}"


Contexts = Callable[[Any, Tensor, Tensor], list[Tensor]]


def looked(contexts: Contexts, model: Any, given: Tensor, backward: bool) -> list[Tensor]:
    """The contexts (B, T, D) of queries and keys, and the gradients of these and of the score's weights if wanted."""
    if not backward:
        with torch.no_grad():
            return [torch.stack(contexts(model, *given), 1)]
    score = model.network.attention.score if isinstance(model, translate.Model) else model
    leaves = [each.requires_grad_() for each in given.clone().unbind()]
    leaves += [each.weight for each in (score.query, score.key, score.energy)]
    context = torch.stack(contexts(model, *leaves[:2]), 1)
    return [context, *torch.autograd.grad(context, leaves, given[1])]


def our_contexts(model: Any, queries: Tensor, keys: Tensor) -> list[Tensor]:
    attention, mask = model.network.attention, keys.new_ones(len(keys), 1, keys.shape[1], dtype=torch.bool)
    memory = attention.prepare(keys, keys, mask)
    return [attention(query.unsqueeze(1), memory).context.squeeze(1) for query in queries.unbind(1)]


def plain_contexts(once: bool, plain: Plain, queries: Tensor, keys: Tensor) -> list[Tensor]:
    projected, present = plain.key(keys) if once else None, keys.new_ones(keys.shape[:2], dtype=torch.bool)
    return [plain.attend(query, keys, projected, present) for query in queries.unbind(1)]


def products(model: Any, words: int, passes: int) -> None:
    """The products of the output layer and of the cell, a batch at a time."""
    cell = torch.cat((model.network.word.weight, model.network.carried.weight), 1)
    for weight in (model.words.weight.detach(), cell.detach()):
        given = weight.new_ones(BATCH, weight.shape[1])
        for _ in range(words // BATCH * passes):
            torch.mm(given, weight.mT)


def steps(model: Any, length: int, rounds: int) -> Row:
    """A step of training: of Adam, without dropout."""
    plain = Plain(model)
    source, target = torch.randint(4, WORDS, (2, BATCH, length))
    pair = {"source": source, "target": target}
    losses = partial(our_loss, model, pair), partial(plain_loss, plain, pair)
    torch.testing.assert_close(*(loss() for loss in losses))
    ours, theirs = (partial(trained, loss, adam(each)) for loss, each in zip(losses, (model, plain), strict=True))
    case = f"training step, batch {BATCH}, {length} words of {length}, {WORDS} to choose from"
    bound = partial(products, model, BATCH * length, 3)
    return compare(case, PLAIN, ours, theirs, bound, PRODUCTS, BATCH * length, rounds)


def our_loss(model: Any, pair: dict[str, Tensor]) -> Tensor:
    return translate.loss(model, pair)[0]


def plain_loss(plain: Plain, pair: dict[str, Tensor]) -> Tensor:
    logits = plain(pair["source"], pair["target"]).flatten(0, 1)
    return nn.functional.cross_entropy(logits, pair["target"].flatten(), ignore_index=0, label_smoothing=0.1)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """One that leaves the weights nearly as they are, as the two models share most of theirs."""
    return torch.optim.Adam(model.parameters(), 1e-9, fused=True)


def trained(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def sentences() -> list[str]:
    """As many characters each as sentences of Multi30k have subwords, about: 14 on average, from 4 to 40."""
    draw = np.random.default_rng(0)
    lengths = draw.gamma(6, 14 / 6, SENTENCES).round().clip(4, 40).astype(int)
    return ["".join(map(chr, draw.integers(0x4E00, 0x4E00 + WORDS - 4, length))) for length in lengths]


def files(model: Any, rounds: int) -> Row:
    """A file greedily translated, every sentence into as many words as it has."""
    plain, texts = Plain(model), sentences()
    ours, theirs = partial(translated, model, texts, 1), partial(plainly_translated, plain, model, texts)
    same = [one == other for one, other in zip(ours(), theirs(), strict=True)]
    assert sum(same) >= 0.99 * len(same), f"{same.count(False)} translations differ"  # a few by rounding
    words = sum(map(len, texts)) + len(texts)
    case = f"{SENTENCES} sentences decoded greedily, {words} words"
    return compare(case, PLAIN, ours, theirs, partial(products, model, words, 1), PRODUCTS, SENTENCES, rounds)


def plainly_translated(plain: Plain, model: Any, texts: list[str]) -> list[str]:
    """Sentence after sentence as they come, 64 at a time."""
    found, numbers = [], [torch.tensor([*each, END]) for each in model.vocabulary.encode(texts)]
    for first in range(0, len(texts), BATCH):
        source = pad_sequence(numbers[first : first + BATCH], batch_first=True)
        found += [model.vocabulary.decode(words) for words in plain.greedy(source, model.longest(source)).tolist()]
    return found


def beams(model: Any, rounds: int) -> Row:
    """A beam of five against greedy decoding, of ten sentences one by one: a ratio below one, as it does more."""
    sources = [torch.tensor([[*each, END]]) for each in model.vocabulary.encode(sentences()[:10])]
    for one, other in zip(decoded(model, sources, 1), decoded(model, sources, None), strict=True):
        torch.testing.assert_close(one, other)
    ours, theirs = partial(decoded, model, sources, 5), partial(decoded, model, sources, None)
    words = sum(source.shape[1] for source in sources)
    bound = partial(products, model, words * BATCH // 10, 1)
    return compare("beam 5, batch 1", "greedy, batch 1", ours, theirs, bound, PRODUCTS, len(sources), rounds)


@torch.no_grad()
def decoded(model: Any, sources: list[Tensor], size: int | None) -> list[Tensor]:
    """Each by itself, greedily or by a beam."""
    search = decoding.greedy if size is None else partial(decoding.beam, size=size)
    return [search(model.step, model.begin(source), model.longest(source))[0] for source in sources]


def draw(rows: list[dict[str, Any]]) -> Figure:
    """The time of a word's attention by the length of its sentence."""
    times = {(row["case"], row["peer"]): row for row in rows}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("training", "decoding"), strict=True):
        lines = [(PLAIN, "peer_ms", "#d55e00"), (ONCE, "peer_ms", "#e69f00"), (PLAIN, "ours_ms", "#0072b2")]
        for peer, whose, colour in lines:
            found = [times[named(name, length), peer] for length in LENGTHS]
            axes.plot(
                LENGTHS, [1e3 * row[whose] / row["items"] for row in found], "o-", c=colour,
                label="regard" if whose == "ours_ms" else peer,
            )  # fmt: skip
        axes.set(title=f"attention in {name}", xlabel="words of the sentence", ylim=0, xlim=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("microseconds a word")
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    harness.main("words", measure, draw)
