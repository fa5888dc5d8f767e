"""What reads and writes a memory at every step: softly, by distributions over all cells, or hard, by pointers."""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

import regard as rg

START = 0.1
"""About as large are the numbers in a cell before anything is written."""


class State(NamedTuple):
    """What a step hands to the next."""

    memory: Any
    """A tensor (B, K, V), or `Cells` of this shape."""
    read: Float[Tensor, "B V"]
    """What was read."""
    places: Any
    """Where the heads are: the states of two attentions, or a place of each, (B, heads)."""
    moves: Any = None
    """The last move of each pointer, (B, heads)."""


class Look(NamedTuple):
    """Where a step wrote and read."""

    write: rg.Positions
    read: rg.Positions
    z: Any = None
    """The cell that was written to and the one that was read, (B, heads), where they were drawn or chosen."""
    log_prob: Any = None
    """(B,), of all that was drawn."""
    entropy: Any = None
    """(B,), of all that may be drawn, in nats."""

    def cells(self, part: Literal["write", "read"]) -> Float[Tensor, "B K"]:
        """How much of each cell was written or read."""
        if self.z is None:
            return getattr(self, part).mean.squeeze(1)
        return self.write.indicator(self.z)[:, 0 if part == "write" else 1]


class Soft(nn.Module):
    """A head that writes and one that reads, each a distribution over all cells: by what is in the cells alone, or also
    by moves from where it was (Graves et al. 2014, sections 3.1 to 3.3)."""

    def __init__(self, hidden: int, width: int, shift: int, content_alone: bool):
        super().__init__()
        self.width = width
        heads = [
            rg.Attention(
                score=rg.Content(hidden, width),
                over=rg.softmax if content_alone else rg.addressing(hidden, shift),
                read=rg.mean,
            )
            for _ in range(2)
        ]
        self.write, self.read = heads
        self.first = None if content_alone else nn.Parameter(START * torch.randn(width))
        self.erase, self.add = nn.Linear(hidden, width), nn.Linear(hidden, width)

    def begin(self, count: int, cells: int) -> State:
        """Both heads at the first cell, whose content is learned, so that it is found again. The others are empty; but
        for content alone each has another content, or they could never be told apart."""
        like = self.add.weight
        memory = like.new_zeros(count, cells, self.width)
        if self.first is not None:
            memory[:, 0] = self.first
        else:
            numbers = torch.arange(1, cells * self.width + 1, device=like.device).to(like).view(cells, self.width)
            memory = memory + numbers.square().sin() * START
        return State(memory, like.new_zeros(count, self.width), (None, None))

    def forward(self, hidden: Float[Tensor, "B H"], shown: Tensor, state: State) -> tuple[State, Look]:
        """A step: it writes, and then it reads."""
        query, memory = hidden.unsqueeze(1), state.memory
        wrote = self.write(query, self.write.prepare(memory, memory), state.places[0])
        memory = rg.write(memory, wrote.positions, self.erase(query).sigmoid(), self.add(query))
        read = self.read(query, self.read.prepare(memory, memory), state.places[1])
        look = Look(wrote.positions, read.positions)
        return State(memory, read.context.squeeze(1), (wrote.state, read.state)), look


class Hard(nn.Module):
    """Pointers that move: one writes and another reads, or a single one does both, and also chooses whether it writes.

    A pointer moves back, not at all, or forth, round the memory; or it jumps, to the first cell or to the one that is
    most like what the step writes. What is written replaces what was in the cell, and is a function of what is shown
    alone. In training half of the rows repeat their last move with the probability `sticky`, and else draw one: so they
    try what a pointer would do that keeps going. `log_prob` is that of this mixture.
    """

    sticky: Tensor

    def __init__(self, hidden: int, inputs: int, width: int, pointers: int, jumps: tuple[str, ...], sticky: float):
        super().__init__()
        self.width, self.pointers, self.jumps = width, pointers, jumps
        self.register_buffer("sticky", torch.tensor(sticky))
        self.options = 3 + len(jumps)
        self.moves, self.content = nn.Linear(hidden, pointers * self.options), nn.Linear(inputs, width)
        self.writes = nn.Linear(hidden, 2) if pointers == 1 else None

    def begin(self, count: int, cells: int) -> State:
        """The memory empty, and the pointers at its first cell."""
        like = self.content.weight
        empty = rg.Cells(like.new_zeros(count, cells, self.width))
        places = torch.zeros(count, self.pointers, dtype=torch.long, device=like.device)
        return State(empty, like.new_zeros(count, self.width), places)

    def forward(self, hidden: Float[Tensor, "B H"], shown: Float[Tensor, "B D"], state: State) -> tuple[State, Look]:
        """A step: the pointers move, one writes, and the other reads."""
        content, cells = self.content(shown).unsqueeze(1), state.memory
        pointer = self._pointer(hidden, content, state)
        z, log_prob, entropy = self._chosen(pointer)
        written = z[:, :1]
        if self.writes is not None:
            choice = rg.OneHot(scores=self.writes(hidden).unsqueeze(1))
            chosen, more, also = self._chosen(choice)
            written, log_prob, entropy = written.where(chosen == 1, -1), log_prob + more, entropy + also
        cells = rg.write(cells, pointer, torch.ones_like(content), content, written)
        read = cells.read(z[:, -1:]).squeeze(1)
        moves = (pointer.targets == z.unsqueeze(-1)).int().argmax(-1)
        both = torch.cat((written, z[:, -1:]), 1)
        return State(cells, read, z, moves), Look(pointer, pointer, both, log_prob, entropy)

    def _pointer(self, hidden: Tensor, content: Tensor, state: State) -> rg.Pointer:
        """Where the pointers may go, and by which probabilities."""
        cells, places = state.memory.shape[-2], state.places.unsqueeze(-1)  # (B, heads, 1)
        targets = [(places + rg.offsets(3).to(places.device)) % cells]
        if "start" in self.jumps:
            targets.append(torch.zeros_like(places))
        if "match" in self.jumps:
            targets.append(_most_like(content, state.memory).unsqueeze(-1).expand_as(places))
        scores = self.moves(hidden).unflatten(-1, (self.pointers, self.options))
        weights = scores.softmax(-1)
        if self.training and state.moves is not None:
            sticky = self.sticky * (torch.arange(len(hidden), device=hidden.device) % 2)
            again = F.one_hot(state.moves, self.options).to(weights.dtype)
            weights = torch.lerp(weights, again, sticky.view(-1, 1, 1))
        return rg.Pointer(weights=weights, targets=torch.cat(targets, -1), count=cells)

    def _chosen(self, positions: Any) -> tuple[Int[Tensor, "B heads"], Float[Tensor, " B"], Float[Tensor, " B"]]:
        """What is drawn in training, and else the likeliest; its log-probability, and the entropy."""
        z = positions.sample() if self.training else positions.mode
        return z, positions.log_prob(z).sum(-1), positions.entropy().sum(-1)


@torch.no_grad()
def _most_like(content: Float[Tensor, "B 1 V"], cells: rg.Cells) -> Int[Tensor, "B 1"]:
    """The cell whose content has the smallest angle to what is given."""
    return rg.Cosine()(content, cells.tensor()).argmax(-1)
