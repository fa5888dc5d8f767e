"""Networks that hear: an encoder that knows a neighbourhood, and a decoder that spells what it looks at."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import regard as rg

SHRINK = 4
"""Frames of one place."""
AHEAD = 38
"""Frames behind its first that a place knows of: 2 + 2 * 2 of the strided convolutions, and 4 * (2 + 4 + 2)."""
BEHIND = 2
"""Places behind a sound, at which there is nothing: where a reader sees that it is over."""
BACK = 2
"""How many places a look may go back, where a window keeps it."""


class Local(nn.Module):
    """Two convolutions of stride 2 and three residual ones, all over five places: a place knows its neighbourhood of
    most of a second, and nothing of how much came before. With `recurrent`, a GRU in both directions follows."""

    def __init__(self, bands: int, size: int, recurrent: bool = False):
        super().__init__()
        self.strided = nn.ModuleList(nn.Conv1d(n, size, 5, 2, padding=2) for n in (bands, size))
        self.residual = nn.ModuleList(nn.Conv1d(size, size, 5, padding=2 * n, dilation=n) for n in (1, 2, 1))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for _ in range(5))
        self.gru = nn.GRU(size, size // 2, batch_first=True, bidirectional=True) if recurrent else None

    def forward(
        self, frames: Float[Tensor, "B T bands"], count: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B K D"], Int[Tensor, " B"]]:
        """The places of sounds of so many frames, and how many each has; zero behind them."""
        norms = iter(self.norms)
        hidden = frames * _within(frames, count)
        for layer in self.strided:
            count = (count + 1) // 2
            hidden = next(norms)(layer(hidden.mT)).mT.relu()
            hidden = hidden * _within(hidden, count)
        for layer in self.residual:
            hidden = hidden + next(norms)(layer(hidden.mT)).mT.relu()
            hidden = hidden * _within(hidden, count)
        if self.gru is not None:
            packed = pack_padded_sequence(hidden, count.cpu(), batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=hidden.shape[1])
        return hidden, count


def _within(hidden: Tensor, count: Tensor) -> Tensor:
    return rg.padding(count, hidden.shape[1]).mT  # (B, K, 1)


class Spelling(NamedTuple):
    """What a decoder goes on from."""

    memory: rg.Memory
    places: Tensor
    """How many of them there are, of each sound, (B,)."""
    context: Tensor
    """What was read last, (B, D)."""
    hidden: Tensor
    """(B, D)."""
    place: Tensor
    """Where it looked last, most of all, (B,)."""
    attention: rg.State | None = None


class Speller(nn.Module):
    """A decoder without a memory of its own: it looks by its last symbol and by what it read last, and the next symbol
    is told from what is read alone, so that it cannot count. With `recurrent` it has one, a GRU.

    Without `attention` all it reads is the mean of the sound."""

    def __init__(self, symbols: int, size: int, attention: rg.Attention | None, recurrent: bool = False):
        super().__init__()
        self.vectors = nn.Embedding(symbols, size)
        self.asking: Any = nn.Linear(2 * size, size) if not recurrent else nn.GRUCell(2 * size, size)
        self.attention, self.recurrent = attention, recurrent
        self.behind = nn.Parameter(torch.zeros(BEHIND, size))
        self.telling = nn.Linear(2 * size if recurrent else size, symbols)
        self.window: int | None = None
        """Places on from the last look that the next one may be, in use; if not given, any."""

    def begin(self, states: Float[Tensor, "B K D"], count: Int[Tensor, " B"]) -> Spelling:
        """The state before the first symbol of sounds of so many places."""
        mean = states.sum(1) / count.unsqueeze(-1)  # (B, D)
        zero, places = torch.zeros_like(mean), count + BEHIND
        states = torch.cat((states, torch.zeros_like(states[:, :BEHIND])), 1)
        at = torch.arange(states.shape[1], device=states.device) - count.unsqueeze(-1)
        for n, vector in enumerate(self.behind):
            states = torch.where((at == n).unsqueeze(-1), vector, states)
        if self.attention is None:
            return Spelling(rg.Memory(states, states), places, mean, mean, 0 * places)
        memory = self.attention.prepare(states, states, rg.padding(places, states.shape[1]))
        first = torch.zeros_like(states[:, :2, :1]).expand(-1, -1, states.shape[1]).clone()
        first[..., 0] = 1  # as if a look before all had been at the first place
        known = rg.State(first if isinstance(self.attention.score, rg.LocationAware) else None)
        return Spelling(memory, places, zero, zero, 0 * places - 1, known)

    def ask(self, words: Int[Tensor, " B"], state: Spelling) -> Float[Tensor, "B D"]:
        """By what it looks, after these symbols."""
        known = torch.cat((self.vectors(words), state.context), -1)
        return self.asking(known, state.hidden) if self.recurrent else self.asking(known).tanh()

    def tell(self, context: Float[Tensor, "*N D"], query: Tensor) -> Float[Tensor, "*N symbols"]:
        """The scores of the next symbol."""
        if self.recurrent:
            context = torch.cat((context, query.expand(*context.shape[:-1], -1)), -1)
        return self.telling(context)

    def forward(self, words: Int[Tensor, " B"], state: Spelling) -> tuple[Tensor, Tensor, Any, Spelling]:
        """One symbol later: the scores of the next, (B, symbols), the query, where it looked, and the state."""
        query = self.ask(words, state)
        if self.attention is None:
            return self.tell(state.context, query), query, None, state._replace(hidden=query)
        out = self.attention(query.unsqueeze(1), self._near(state), state.attention)
        context = out.context.squeeze(1)
        place = out.weights.argmax(-1).squeeze(-1) if self.window and not self.training else state.place
        state = state._replace(context=context, hidden=query, place=place, attention=out.state)
        return self.tell(context, query), query, out, state

    def _near(self, state: Spelling) -> rg.Memory:
        """What may be looked at now."""
        if self.window is None or self.training:
            return state.memory
        mask = state.memory.mask & near(state.place, self.window, state.memory.mask.shape[-1])  # pyright: ignore
        return rg.Memory(state.memory.keys, state.memory.values, mask)


def near(place: Int[Tensor, " B"], window: int, places: int) -> Bool[Tensor, "B 1 K"]:
    """The places that lie in the window of a look after one at `place`, which is -1 before the first.

    >>> near(torch.tensor([3]), window=2, places=8).long()
    tensor([[[0, 1, 1, 1, 1, 1, 0, 0]]])
    """
    on = torch.arange(places, device=place.device) - place.unsqueeze(-1)
    return ((on >= -BACK) & (on <= window)).unsqueeze(1)
