"""Networks that read one sequence and write another: recurrent, with any attention between, and a Transformer.

Both begin with the vectors of a sentence, `begin(words, present)`, and go on by those of the words that are written,
`network(words, state)`: all at once in training, or some at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import regard as rg
from regard.protocol import at

PLACES = 1024
"""Words of a sentence that may be looked at, from its beginning; all are read."""


class Decoded(NamedTuple):
    """What a decoder made of T words, of B sentences."""

    features: Tensor
    """What the next word is told from, (B, T, D)."""
    hidden: Tensor
    """The decoder's states, which looked, (B, T, D)."""
    looks: Sequence[rg.Attended]
    """Where they looked: of each word, or of all together."""
    kept: Tensor | float = 1.0
    """Zero for features that are dropped, (B, 1, D): the same whatever a word looked at."""

    @property
    def weights(self) -> Tensor:
        """Where each word looked, (B, T, K): of several attentions side by side, their mean."""
        weights = torch.cat([look.weights for look in self.looks], -2)
        return weights.mean(1) if weights.dim() == 4 else weights

    @property
    def positions(self) -> Any:
        """The distribution over where all words look."""
        first, *later = (look.positions for look in self.looks)
        return first.then(*later)


class State(NamedTuple):
    """What a recurrent decoder goes on from."""

    memory: rg.Memory
    hidden: Tensor
    """(B, D)."""
    cell: Tensor
    """(B, D)."""
    fed: Tensor
    """The features of the word before, (B, D)."""
    attention: rg.State | None = None
    """What the attention carries from word to word."""


class Recurrent(nn.Module):
    """An LSTM in both directions over the sentence, and one that writes, looks, and is fed what it saw (Luong et al.
    2015, section 3). `attention` is a row of `regard list`, or None for one fixed vector (Sutskever et al. 2014)."""

    def __init__(self, size: int, attention: str | None, layers: int = 1, dropout: float = 0.0):
        super().__init__()
        self.fixed, self.dropped = attention is None, Dropped(dropout)
        between = dropout if layers > 1 else 0.0
        self.encoder = nn.LSTM(size, size // 2, layers, batch_first=True, bidirectional=True, dropout=between)
        self.start = nn.Linear(size, 2 * size)
        self.word, self.carried = nn.Linear(size, 4 * size), Recurring(2 * size, 4 * size, bias=False)
        row = rg.named.find(attention or "dot")
        self.attention: Any = row.make(query_dim=size, key_dim=size, hidden_dim=size, places=PLACES)
        self.seen, self.own = nn.Linear(size, size, bias=False), nn.Linear(size, size)

    def begin(self, words: Tensor, present: Tensor) -> State:
        """The state before the first word, from a sentence's vectors (B, K, D)."""
        packed = pack_padded_sequence(words, present.sum(-1).cpu(), batch_first=True, enforce_sorted=False)
        states, (last, _) = self.encoder(packed)
        summary = torch.cat((last[-2], last[-1]), -1)  # (B, D)
        keys, _ = pad_packed_sequence(states, batch_first=True)
        if self.fixed:
            keys, present = summary.unsqueeze(-2), present[:, :1]
        keys = self.dropped(keys[:, :PLACES])
        memory = self.attention.prepare(keys, self.seen(keys), present[:, None, :PLACES])
        hidden, cell = wide(self.start(summary)).tanh().chunk(2, -1)
        return State(memory, hidden, cell, torch.zeros_like(hidden))

    def forward(self, words: Tensor, state: State) -> tuple[Decoded, State]:
        """The next T words after those whose vectors are given, (B, T, D)."""
        words, carry = self.carried.begin(self.word(words))
        steps = []
        for word in words.unbind(1):
            out, state = self.step(word, state, carry)
            steps.append((out, state.hidden, state.fed))
        looks, hidden, features = zip(*steps, strict=True)
        return Decoded(torch.stack(features, 1), torch.stack(hidden, 1), looks), state

    def step(self, word: Tensor, state: State, carry: Callable[[Tensor], Tensor]) -> tuple[rg.Attended, State]:
        """One word later: an LSTM with input feeding (Luong et al. 2015, section 3.3), and a look with its state."""
        gates = word + carry(torch.cat((state.fed, state.hidden), -1))
        hidden, cell = lstm(gates, state.cell)
        out = self.attention(hidden.unsqueeze(-2), state.memory, state.attention)
        return out, State(state.memory, hidden, cell, self.joined(out.context.squeeze(-2), hidden), out.state)

    def joined(self, context: Tensor, hidden: Tensor) -> Tensor:
        """tanh(W [c; h]) (Luong et al. 2015, equation 5); the values are multiplied by their half of W beforehand."""
        return (context + self.own(hidden)).tanh()

    def given(self, z: Tensor, decoded: Decoded, memory: rg.Memory) -> Tensor:
        """The features of words that looked at the places z (*S, B, T): (*S, B, T, D)."""
        return self.joined(decoded.positions.gather(memory.values, z), decoded.hidden)


class Recurring(nn.Linear):
    """A linear map of one step after the other, the gradient of whose weight is one product for all steps together:
    each by itself would take as long as all else."""

    def begin(self, added: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """What will be added to the steps, (B, T, N), and the map of a step."""
        before: list[Tensor] = []
        weight = self.weight.detach().to(added.dtype)  # autocast would cast it again at every step

        def carry(step: Tensor) -> Tensor:
            before.append(step.detach())
            return nn.functional.linear(step, weight)

        return _Product.apply(added, self.weight, before), carry  # pyright: ignore[reportReturnType]


class _Product(torch.autograd.Function):
    """What is added, as it is; backwards, the gradient of the weight by which the steps were multiplied."""

    @staticmethod
    def forward(ctx: Any, added: Tensor, weight: Tensor, before: list[Tensor]) -> Tensor:
        ctx.before, ctx.dtype = before, weight.dtype
        return added.view_as(added)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        steps = torch.stack(ctx.before, 1).flatten(0, 1).to(grad.dtype)  # (B T, D)
        return grad, (grad.flatten(0, 1).mT @ steps).to(ctx.dtype), None


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def picked(tensor: Tensor, places: Tensor) -> Tensor:
    """What of a tensor (B, K, D) is at places (B, P), (B, P, D); `take_along_dim`, which would freeze the sizes of an
    exported program.

    >>> picked(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[2, 0]]))
    tensor([[[3.],
             [1.]]])
    """
    return tensor.gather(1, places.unsqueeze(-1).expand(-1, -1, tensor.shape[-1]))


class SoftThen(nn.Module):
    """The mean in the first `steps` of training, then another read: where to look is learned from draws only when it
    matters already what is seen there. A recipe's `after_step` counts the steps."""

    left: Tensor

    def __init__(self, steps: int, read: Any):
        super().__init__()
        self.read = read
        self.register_buffer("left", torch.tensor(steps))

    @property
    def soft(self) -> bool:
        """Whether these steps are not over."""
        return bool(self.left > 0)

    def count(self) -> None:
        """Notes that a step of training is made."""
        self.left.sub_(1)

    def at(self, step: Any) -> Any:
        """The plain function that it is at a step."""
        return rg.mean if step.training and self.soft else at(self.read, step)


class Dropped(nn.Dropout):
    """Dropout of the same units in all words of a sentence (*S, B, T, D) (Gal and Ghahramani 2016, "A Theoretically
    Grounded Application of Dropout in Recurrent Neural Networks")."""

    def forward(self, input: Tensor) -> Tensor:
        return input * super().forward(torch.ones_like(input[..., :1, :]))


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next state and cell of an LSTM (Hochreiter and Schmidhuber 1997, with the gate of Gers et al. 2000)."""
    size = cell.shape[-1]
    shares, made = gates.split((3 * size, size), -1)
    keep, take, show = shares.sigmoid().chunk(3, -1)
    cell = keep * cell + take * made.tanh()
    return show * cell.tanh(), cell


class Layer(nn.Module):
    """A layer of a Transformer: words look at each other, at the sentence if there is one, and are transformed by
    themselves, each added to what was there (Vaswani et al. 2017, section 3.1; normalised before, as in Xiong et al.
    2020, "On Layer Normalization in the Transformer Architecture")."""

    def __init__(self, size: int, heads: int, dropout: float, reads: bool):
        super().__init__()
        row = rg.named.find("multi-head")
        self.itself: Any = row.make(query_dim=size, key_dim=size, heads=heads)
        self.sentence: Any = row.make(query_dim=size, key_dim=size, heads=heads) if reads else None
        self.alone = nn.Sequential(nn.Linear(size, 4 * size), nn.ReLU(), nn.Linear(4 * size, size))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3 if reads else 2))
        self.dropped = nn.Dropout(dropout)

    def forward(
        self, words: Tensor, mask: Tensor | None, past: rg.Memory | None = None, sentence: rg.Memory | None = None
    ) -> tuple[Tensor, rg.Memory, rg.Attended]:
        """Words (B, T, D) after the past: the same one layer up, the past with them, and where they looked."""
        normal = self.norms[0](words)
        past = followed(past, self.itself.prepare(normal, normal, mask))
        out = self.itself(normal, past)
        words = words + self.dropped(out.context)
        if sentence is not None:
            out = self.sentence(self.norms[1](words), sentence)
            words = words + self.dropped(out.context)
        return words + self.dropped(self.alone(self.norms[-1](words))), past, out


def followed(past: rg.Memory | None, new: rg.Memory) -> rg.Memory:
    """A memory with new places behind its own."""
    if past is None:
        return new
    return rg.Memory(torch.cat((past.keys, new.keys), -2), torch.cat((past.values, new.values), -2))


def waves(first: Tensor, count: int, size: int) -> Tensor:
    """Sines and cosines that tell places from `first` (B) on apart, (B, count, size) (Vaswani et al. 2017, section
    3.5)."""
    places = first.unsqueeze(-1) + torch.arange(count, device=first.device)
    angles = places.unsqueeze(-1) * 1e-4 ** torch.linspace(0, 1, size // 2, device=first.device)
    return torch.cat((angles.sin(), angles.cos()), -1)


class Written(NamedTuple):
    """What a Transformer's decoder goes on from: of each layer the words so far, and the sentence."""

    pasts: tuple[rg.Memory | None, ...]
    sentences: tuple[rg.Memory, ...]
    length: Tensor
    """How many words so far, (B,)."""


class Transformer(nn.Module):
    """Layers of self-attention over the sentence, and others over what is written (Vaswani et al. 2017)."""

    def __init__(self, size: int, heads: int, layers: int = 1, dropout: float = 0.0):
        super().__init__()
        self.encoder: Any = nn.ModuleList(Layer(size, heads, dropout, reads=False) for _ in range(layers))
        self.decoder: Any = nn.ModuleList(Layer(size, heads, dropout, reads=True) for _ in range(layers))
        self.read, self.write = nn.LayerNorm(size), nn.LayerNorm(size)

    def begin(self, words: Tensor, present: Tensor) -> Written:
        """The state before the first word, from a sentence's vectors (B, K, D)."""
        none, mask = torch.zeros_like(present[:, 0], dtype=torch.long), present.unsqueeze(-2)
        words = words + waves(none, *words.shape[1:])
        for layer in self.encoder:
            words, _, _ = layer(words, mask)
        keys = self.read(words)[:, :PLACES]
        memories = tuple(layer.sentence.prepare(keys, keys, mask[..., :PLACES]) for layer in self.decoder)
        return Written((None,) * len(memories), memories, none)

    def forward(self, words: Tensor, state: Written) -> tuple[Decoded, Written]:
        """The next T words after those whose vectors are given, (B, T, D)."""
        count, looks, pasts = words.shape[1], [], []
        words = words + waves(state.length, *words.shape[1:])
        mask = rg.causal(count, device=words.device)[None] if count > 1 else None
        for layer, past, sentence in zip(self.decoder, state.pasts, state.sentences, strict=True):
            words, past, out = layer(words, mask, past, sentence)
            looks, pasts = [*looks, out], [*pasts, past]
        state = Written(tuple(pasts), state.sentences, state.length + count)
        return Decoded(self.write(words), words, looks[-1:]), state
