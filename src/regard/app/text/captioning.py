"""A recurrent network that says word by word what a picture shows, and looks at it for every word."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from torch.nn.utils.rnn import pad_sequence

import regard as rg
from regard.app.text import decoding
from regard.app.text.bleu import bleu
from regard.app.text.networks import wide
from regard.app.text.vocabulary import BEGIN, END, UNKNOWN

LONGEST = 60
"""Words of a caption at most, when it is written."""


def alike(query: Float[Tensor, "*B Q D"], keys: Float[Tensor, "*B K V"]) -> Float[Tensor, "*B Q K"]:
    """The score of one who knows nothing: all places alike."""
    return query.new_zeros(*query.shape[:-1], keys.shape[-2])


class Through:
    """The read that is `straight_through` in training, and the mode in evaluation."""

    def at(self, step: rg.Step) -> Any:
        return rg.straight_through if step.training else rg.mode


class State(NamedTuple):
    """What a caption goes on from."""

    memory: rg.Memory
    hidden: Tensor
    """(B, H)."""
    cell: Tensor
    """(B, H)."""


class Told(NamedTuple):
    """What is known of T words before they are told, of B captions."""

    hidden: Tensor
    """The states, which looked, (B, T, H)."""
    before: Tensor
    """The vectors of the words before, (B, T, H)."""
    looked: rg.Attended
    kept: Tensor
    """Zero for features that are dropped, (B, 1, H): the same whatever a word looked at."""


class Teller(nn.Module):
    """An LSTM with H units that begins with the mean of the K places of a picture, looks with each of its states, and
    tells a word from the state, what is read, and the word before (Xu et al. 2015, sections 3.1.2 and 4.2.1).

    What is read is not handed on to the next state: the words of a caption that is known all look at once.
    """

    def __init__(self, words: int, places: int, size: int, hidden: int, dropout: float, attention: rg.Attention):
        super().__init__()
        self.dropout, self.attention = dropout, attention
        self.where = nn.Parameter(0.1 * torch.randn(places, size))
        self.words, self.start = nn.Embedding(words, hidden), nn.Linear(size, 2 * hidden)
        self.recurrent = nn.LSTM(hidden, hidden, batch_first=True)
        self.gate, self.seen = nn.Linear(hidden, 1), nn.Linear(size, hidden, bias=False)
        self.own, self.word = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, words)

    def begin(self, places: Float[Tensor, "B K D"], mask: Tensor | None = None) -> State:
        """The state before the first word."""
        hidden, cell = self.start(places.mean(1)).tanh().chunk(2, -1)
        places = places + self.where
        return State(self.attention.prepare(places, places, mask), hidden, cell)

    def tell(self, words: Int[Tensor, "B T"], state: State) -> tuple[Told, State]:
        """What is known of the words that follow each of these, which follow each other."""
        before = self.dropped(self.words(words))
        hidden, carried = self.recurrent(before, tuple(each.unsqueeze(0).contiguous() for each in state[1:]))
        hidden = self.dropped(hidden)
        told = Told(hidden, before, self.attention(hidden, state.memory), self.dropped(torch.ones_like(hidden[:, :1])))
        return told, State(state.memory, *(each.squeeze(0) for each in carried))

    def dropped(self, units: Tensor) -> Tensor:
        """Some of the units are zero in training."""
        return dropout(units, self.dropout, self.training)

    def forward(self, caption: Int[Tensor, "B T"], state: State) -> Told:
        """What is known of every word of captions, given those before it."""
        return self.tell(torch.cat((torch.full_like(caption[:, :1], BEGIN), caption[:, :-1]), 1), state)[0]

    def features(self, told: Told, context: Float[Tensor, "*SB T D"]) -> Float[Tensor, "*SB T H"]:
        """What words are told from that read a context: tanh(L_z beta z + L_h h + L_e e) with the gate beta = sigmoid(w
        . h + b) (Xu et al. 2015, equation 7, rectified otherwise, and section 4.2.1)."""
        seen = self.seen(self.gate(told.hidden).sigmoid() * context)
        return told.kept * (seen + self.own(told.hidden) + self.word(told.before)).tanh()

    def cost(
        self, told: Told, context: Float[Tensor, "*SB T D"], target: Int[Tensor, "B T"], smoothing: float = 0.0
    ) -> Float[Tensor, "*SB T"]:
        """The cross-entropy of each word of captions by what is read; 0 after END."""
        present = target > 0
        logits = wide(self.score(self.features(told, context)[..., present, :]))  # (*S, W, words)
        labels = target[present].expand(logits.shape[:-1])
        found = cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=smoothing)
        costs = found.new_zeros(context.shape[:-1])
        costs[..., present] = found.view(labels.shape)
        return costs

    def cost_of_others(self, caption: Int[Tensor, "N T"], smoothing: float = 0.0) -> Float[Tensor, ""]:
        """The mean cost of a word of captions whose pictures are not there: nothing is known at first, nothing read."""
        nothing = self.where.new_zeros(len(caption), 1, self.where.shape[1])
        hidden = nothing.new_zeros(len(caption), self.own.in_features)
        mask = torch.zeros(len(caption), 1, 1, dtype=torch.bool, device=caption.device)
        told = self(caption, State(self.attention.prepare(nothing, nothing, mask), hidden, hidden))
        return self.cost(told, told.looked.context, caption, smoothing).sum() / (caption > 0).sum()

    def step(self, words: Int[Tensor, " N"], state: State) -> tuple[Float[Tensor, "N words"], State]:
        """The log-probabilities of what follows the words, for `regard.app.text.decoding`; never UNKNOWN."""
        told, state = self.tell(words.unsqueeze(1), state)
        logits = wide(self.score(self.features(told, told.looked.context)[:, 0]))
        logits[:, UNKNOWN] = -torch.inf
        return logits.log_softmax(-1), state

    def written(self, state: State, beam: int) -> list[Int[Tensor, " T"]]:
        """The numbers of the words that are said of each picture, without END."""
        longest = torch.full_like(state.hidden[:, 0], LONGEST, dtype=torch.long)
        return (
            decoding.beam(self.step, state, longest, beam) if beam > 1 else decoding.greedy(self.step, state, longest)
        )


def ended(captions: Sequence[Int[Tensor, " _"]]) -> Int[Tensor, "B T"]:
    """Captions with END behind each, one below the other."""
    return pad_sequence([nn.functional.pad(words, (0, 1), value=END) for words in captions], batch_first=True)


def references(batch: Mapping[str, Tensor]) -> list[list[str]]:
    """The captions in the data, of each picture."""
    return [bytes(row[row > 0].tolist()).decode().split("\n") for row in batch["text"]]


def wandering(looked: rg.Attended, present: Bool[Tensor, "B T"]) -> dict[str, Float[Tensor, " B"]]:
    """Of captions, where their words look: the `entropy` in nats, the `movement`, which is the total variation between
    where a word looks and the next, and the `places` that are read."""
    count = present.sum(-1)
    moves = (looked.weights[:, 1:] - looked.weights[:, :-1]).abs().sum(-1) / 2 * present[:, 1:]
    each = 1 if looked.z is not None else (looked.weights[0, 0] > 0).sum()
    return {
        "entropy": (looked.positions.entropy() * present).sum(-1) / count,
        "movement": moves.sum(-1) / (count - 1).clamp_min(1),
        "places": (each * count).float(),
    }


def conclude(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """What is to be known of a split, from the sum and the number of each of its values."""
    names = [name for name in sums if name != "words" and "_" not in name]  # and not what BLEU counts
    score = bleu({name: total for name, (total, _) in sums.items()})
    return {name: sums[name][0] / sums[name][1] for name in names} | {"bleu": score}
