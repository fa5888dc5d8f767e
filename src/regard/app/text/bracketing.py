"""Networks that make trees of sentences: an encoder, a chart of spans, and a writer of brackets that looks at words."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import regard as rg
from regard.app.data.brackets import Known
from regard.app.text.brackets import CLOSE, END, FIRST_LABEL, WORD
from regard.app.text.networks import Dropped
from regard.app.text.parsing import Recurrent
from regard.protocol import at

PLACES = 512
"""Words of a sentence whose places are told apart."""
NESTED = 12
"""Brackets that may begin before one word, where the writer is told what is well-formed."""


class Encoder(nn.Module):
    """Vectors of words and of what they look like, and recurrent layers in both directions, (B, K, 2 hidden), with
    scores of the parts of speech from the first of them, (B, K, tags)."""

    def __init__(self, config: Any, known: Known):
        super().__init__()
        self.forget = config.word_dropout
        self.word = nn.Embedding(2 + len(known.words), config.words, padding_idx=0)
        nn.init.zeros_(self.word.weight)  # what a word looks like is learned sooner than what it is
        self.shape = nn.Embedding(2 + len(known.shapes), config.shapes, padding_idx=0)
        sizes = [config.words + config.shapes, *[2 * config.hidden] * (config.layers - 1)]
        self.layers = nn.ModuleList(Recurrent(size, config.hidden) for size in sizes)
        self.dropped, self.tag = Dropped(config.dropout), nn.Linear(2 * config.hidden, len(known.tags))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K tags"]]:
        words, present = batch["words"], (batch["words"] > 0).unsqueeze(-1)
        if self.training:
            forgotten = torch.rand(words.shape, device=words.device) < self.forget
            words = words.where(~forgotten | (words == 0), 1)
        layers = [torch.cat((self.word(words), self.shape(batch["shapes"])), -1)]
        for layer in self.layers:
            layers.append(layer(self.dropped(layers[-1]), present.squeeze(-1).sum(-1)))
        return self.dropped(layers[-1]) * present, self.tag(self.dropped(layers[1]))


class Chart(nn.Module):
    """Scores of the labels of spans, (B, K, K, S), by a hidden layer over the differences of what the encoder says at
    their two ends (Stern, Andreas and Klein 2017, section 3); that of no label is zero."""

    def __init__(self, size: int, hidden: int, labels: int, dropout: float):
        super().__init__()
        self.ends = nn.Linear(size, hidden, bias=False)
        self.label = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, labels - 1))
        self.bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, words: Float[Tensor, "B K D"]) -> Float[Tensor, "B K K S"]:
        forth, back = words.chunk(2, -1)
        pad = nn.functional.pad
        between = self.ends(torch.cat((pad(forth, (0, 0, 1, 0)), -pad(back, (0, 0, 0, 1))), -1))  # (B, K + 1, hidden)
        count = words.shape[1]
        first, last = torch.triu_indices(count, count, device=words.device)
        spans = between.index_select(1, last + 1) - between.index_select(1, first)
        scores = pad(self.label(spans + self.bias), (1, 0))  # (B, spans, S)
        table = scores.new_zeros(words.shape[0], count * count, scores.shape[-1])
        return table.index_copy(1, first * count + last, scores).unflatten(1, (count, count))


class Written(NamedTuple):
    """What a writer goes on from, of B sentences."""

    memory: Any
    """The words that may be looked at, a `regard.Memory`; None without attention."""
    hidden: Tensor
    cell: Tensor
    words: Tensor
    """How many words of the sentence there are to be written, (B,)."""
    done: Tensor
    """How many words are written."""
    depth: Tensor
    """How many brackets are open."""
    opened: Tensor
    """How many of them began since the last word or end of a bracket."""
    attention: Any = None


class Output(NamedTuple):
    """What is made of the steps of B trees."""

    features: Tensor
    """What the next step is told from, (B, T, D)."""
    hidden: Tensor
    look: Any
    """Where each step looked, as `regard.Attended`; None without attention."""


class Writer(nn.Module):
    """An LSTM that writes a tree step by step, and at each looks at a word: by what it wrote, and by how many words it
    has written, while each word is known by its place too. What it saw tells the next step but is not handed on, so
    that in training all steps are made at once (as Vinyals et al. 2015, but for the places)."""

    def __init__(self, config: Any, size: int, labels: int, over: Any, read: Any):
        super().__init__()
        width = config.hidden
        self.step, self.place = nn.Embedding(FIRST_LABEL + labels + 1, width), nn.Embedding(PLACES + 1, width)
        self.start = nn.Linear(size, 2 * width)
        self.lstm = nn.LSTM(2 * width, width, batch_first=True)
        self.attention: Any = None
        if over is not None:
            self.attention = rg.Attention(score=rg.Additive(width, size, config.scoring), over=over, read=read)
            self.asked, self.keyed = nn.Embedding(PLACES + 1, width), nn.Embedding(PLACES + 1, size)
            self.seen = nn.Linear(size, width, bias=False)
        self.own = nn.Linear(width, width)
        self.dropped, self.label = Dropped(config.dropout), nn.Linear(width, FIRST_LABEL + labels)

    def begin(self, words: Float[Tensor, "B K D"], present: Bool[Tensor, "B K"]) -> Written:
        """The state before the first step."""
        forth, back = words.chunk(2, -1)
        last = present.sum(-1) - 1
        ends = torch.cat((forth[torch.arange(words.shape[0]), last], back[:, 0]), -1)
        hidden, cell = self.start(ends).tanh().chunk(2, -1)
        none = torch.zeros_like(last)
        return Written(self._memory(words, present), hidden, cell, last + 1, none, none, none)

    def _memory(self, words: Tensor, present: Tensor) -> rg.Memory | None:
        """What may be looked at: the words, each known by its place too."""
        if not self.attention:
            return None
        places = torch.arange(words.shape[1], device=words.device).clamp(max=PLACES)
        return self.attention.prepare(words + self.keyed(places), self.seen(words), present.unsqueeze(1))

    def forward(self, before: Int[Tensor, "B T"], state: Written) -> tuple[Output, Written]:
        """What follows on each of T steps."""
        done = state.done.unsqueeze(-1) + (before == WORD).cumsum(-1)
        places = done.clamp(max=PLACES)
        given = self.dropped(torch.cat((self.step(before), self.place(places)), -1))
        hidden, (last, cell) = self.lstm(given, (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
        features, look = self.own(hidden), None
        if self.attention:
            look = self.attention(hidden + self.asked(places), state.memory, state.attention)
            features = features + look.context
        state = state._replace(hidden=last[0], cell=cell[0], done=done[:, -1], attention=look and look.state)
        return Output(self.dropped(features.tanh()), hidden, look), _counted(state, before)

    def given(self, z: Tensor, output: Output, memory: rg.Memory) -> Tensor:
        """The features of steps that looked at the places z (*S, B, T): (*S, B, T, D)."""
        return self.dropped((self.own(output.hidden) + output.look.positions.gather(memory.values, z)).tanh())


def _counted(state: Written, before: Tensor) -> Written:
    """The state with the brackets of steps (B, T) counted; what began last is known of the last step alone."""
    begins, ends = before >= FIRST_LABEL, before == CLOSE
    opened = (state.opened + 1).where(begins[:, -1], 0)
    return state._replace(depth=state.depth + (begins.sum(-1) - ends.sum(-1)), opened=opened)


def well_formed(state: Written, labels: int) -> Bool[Tensor, "B V"]:
    """Which steps may follow so that a tree of the right number of words comes of it, and no bracket holds nothing."""
    left, inside = state.done < state.words, (state.depth > 0) & (state.opened == 0)
    allowed = torch.zeros(len(left), FIRST_LABEL + labels, dtype=torch.bool, device=left.device)
    allowed[:, WORD], allowed[:, CLOSE], allowed[:, END] = left, inside, ~left & (state.depth == 0)
    allowed[:, FIRST_LABEL:] = (left & (state.opened < NESTED)).unsqueeze(-1)
    return allowed


class Online(nn.Module):
    """The mean in training, and later one place after the other, as soon as a query stops there."""

    def at(self, step: Any) -> Any:
        """The plain function that it is at a step."""
        return rg.mean if step.training else at(rg.online, step)
