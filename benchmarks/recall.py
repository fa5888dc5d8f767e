"""One training step of copying by a neural Turing machine (Graves et al. 2014), beside a plain PyTorch loop of it.

    regard bench recall --out benchmarks/results/recall.json

A step is forward and backward: sequences of vectors of 8 bits, shown one by one and then to be said again, and their
cross-entropy. The machine is the paper's: a feed-forward controller of 100 units, 128 cells of 20 numbers, a head that
reads and one that writes, moves by a width of 3. The plain loop is as such machines are commonly written: the cosine by
`F.cosine_similarity`, moves by `torch.roll`, powers by `**`, reads by `matmul`, and what is erased and added as outer
products. Before anything is timed both must get the same loss and the same gradients from the same weights. The limit
is the time of the matrix products of our own step alone, recorded while it runs and run again with nothing in between.
"""

from collections.abc import Iterable
from functools import partial

import harness
import torch
import torch.nn.functional as F
from draw import products
from torch import Tensor, nn

import regard as rg

BATCH, BITS, HIDDEN, CELLS, WIDTH, MOVES = 32, 8, 100, 128, 20, 3
LENGTHS = (10, 20)


class Machine(nn.Module):
    """A neural Turing machine, of the library's parts."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = nn.Linear(BITS + 1 + WIDTH, HIDDEN)
        self.writer, self.reader = (
            rg.Attention(rg.Content(HIDDEN, WIDTH), rg.addressing(HIDDEN, MOVES)) for _ in range(2)
        )
        self.change = nn.Linear(HIDDEN, 2 * WIDTH)
        self.output = nn.Linear(HIDDEN + WIDTH, BITS)
        self.blank = nn.Parameter(0.1 * torch.randn(CELLS, WIDTH))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (B, T, bits + 1) to the logits of bits (B, T, bits)."""
        memory = self.blank.expand(len(inputs), -1, -1)
        seen, writing, reading, said = memory.new_zeros(len(inputs), 1, WIDTH), None, None, []
        for shown in inputs.split(1, 1):
            hidden = self.controller(torch.cat((shown, seen), -1)).tanh()  # (B, 1, H)
            where = self.writer(hidden, self.writer.prepare(memory, memory), writing)
            erase, add = self.change(hidden).chunk(2, -1)
            memory = rg.write(memory, where.positions, erase.sigmoid(), add)
            read = self.reader(hidden, self.reader.prepare(memory, memory), reading)
            writing, reading, seen = where.state, read.state, read.context
            said.append(torch.cat((hidden, seen), -1))
        return self.output(torch.cat(said, 1))


class Plain(nn.Module):
    """The same machine as it is commonly written."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = nn.Linear(BITS + 1 + WIDTH, HIDDEN)
        self.reading = nn.Linear(HIDDEN, WIDTH + 1 + 1 + MOVES + 1)
        self.writing = nn.Linear(HIDDEN, WIDTH + 1 + 1 + MOVES + 1 + 2 * WIDTH)
        self.output = nn.Linear(HIDDEN + WIDTH, BITS)
        self.blank = nn.Parameter(torch.empty(CELLS, WIDTH))

    def forward(self, inputs: Tensor) -> Tensor:
        count = len(inputs)
        memory = self.blank.unsqueeze(0).repeat(count, 1, 1)
        seen = inputs.new_zeros(count, WIDTH)
        write_weights, read_weights = inputs.new_zeros(2, count, CELLS)
        write_weights[:, 0] = read_weights[:, 0] = 1
        said = []
        for step in range(inputs.shape[1]):
            hidden = torch.tanh(self.controller(torch.cat([inputs[:, step], seen], 1)))
            head, erase, add = self.writing(hidden).split([WIDTH + MOVES + 3, WIDTH, WIDTH], 1)
            write_weights = address(memory, head, write_weights)
            erased = torch.matmul(write_weights.unsqueeze(2), torch.sigmoid(erase).unsqueeze(1))
            added = torch.matmul(write_weights.unsqueeze(2), add.unsqueeze(1))
            memory = memory * (1 - erased) + added
            read_weights = address(memory, self.reading(hidden), read_weights)
            seen = torch.matmul(read_weights.unsqueeze(1), memory).squeeze(1)
            said.append(self.output(torch.cat([hidden, seen], 1)))
        return torch.stack(said, 1)

    @torch.no_grad()
    def copy(self, ours: Machine) -> None:
        """Takes over our weights."""
        for mine, theirs in pairs(ours, self):
            theirs.copy_(mine)


def address(memory: Tensor, head: Tensor, before: Tensor) -> Tensor:
    """The weights (B, N) of a head, from what it says (B, M + 6) and where it was before."""
    key, strength, gate, moves, power = head.split([WIDTH, 1, 1, MOVES, 1], 1)
    similarity = F.cosine_similarity(memory + 1e-16, key.unsqueeze(1) + 1e-16, dim=2)
    found = torch.softmax(F.softplus(strength) * similarity, 1)
    gate = torch.sigmoid(gate)
    mixed = gate * found + (1 - gate) * before
    moves = torch.softmax(moves, 1)
    moved = torch.zeros_like(mixed)
    for number in range(MOVES):
        moved = moved + moves[:, number : number + 1] * torch.roll(mixed, number - MOVES // 2, 1)
    raised = moved ** (1 + F.softplus(power))
    return raised / (raised.sum(1, keepdim=True) + 1e-16)


def pairs(ours: Machine, plain: Plain, of: str = "data") -> list[tuple[Tensor, Tensor]]:
    """Of each of our parameters the data, or the gradient, and the part of theirs that is the same."""
    found = [(getattr(ours.blank, of), getattr(plain.blank, of))]
    writing = [ours.writer.score.key, ours.writer.score.strength, ours.writer.over.gates, ours.change]
    reading = [ours.reader.score.key, ours.reader.score.strength, ours.reader.over.gates]
    whole = {plain.controller: [ours.controller], plain.output: [ours.output]}
    for theirs, mine in (whole | {plain.writing: writing, plain.reading: reading}).items():
        rows = [each.out_features for each in mine]
        for name in ("weight", "bias"):
            whose = [getattr(getattr(each, name), of) for each in mine]
            found += zip(whose, getattr(getattr(theirs, name), of).split(rows), strict=True)
    return found


def examples(length: int) -> tuple[Tensor, Tensor]:
    """Inputs (B, T, bits + 1), what is to be copied and then a sign to do so, and the bits (B, length, bits)."""
    bits = (torch.rand(BATCH, length, BITS) < 0.5).float()
    inputs = torch.zeros(BATCH, 2 * length + 1, BITS + 1)
    inputs[:, :length, :BITS], inputs[:, length, BITS] = bits, 1
    return inputs, bits


def models() -> tuple[Machine, Plain]:
    """Ours and the plain loop, of the same weights."""
    ours, plain = Machine(), Plain()
    plain.copy(ours)
    return ours, plain


def loss(model: nn.Module, inputs: Tensor, bits: Tensor) -> Tensor:
    """The cross-entropy of the bits, where they are to be said."""
    return F.binary_cross_entropy_with_logits(model(inputs)[:, -bits.shape[1] :], bits)


def check(length: int) -> None:
    """Both get the same loss and the same gradients from the same weights."""
    (ours, plain), given = models(), examples(length)
    losses = loss(ours, *given), loss(plain, *given)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for each in losses:
        each.backward()
    for mine, theirs in pairs(ours, plain, "grad"):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


PEER = "cosine_similarity, torch.roll, powers, matmul and outer products"
LIMIT = "the matrix products of our step, forward and backward, run alone"


def measure(rounds: int) -> Iterable[harness.Row]:
    """A row for each length, after the checks."""
    torch.manual_seed(0)
    for length in LENGTHS:
        check(length)
        (ours, plain), given = models(), examples(length)
        our_step, plain_step = (partial(step, model, *given) for model in (ours, plain))
        bound, gflop = products(our_step)
        name = f"a training step of copying, length {length}"
        yield harness.compare(name, PEER, our_step, plain_step, bound, LIMIT, BATCH, rounds, gflop)


def step(model: nn.Module, inputs: Tensor, bits: Tensor) -> None:
    """Forward and backward."""
    model.zero_grad()
    loss(model, inputs, bits).backward()


if __name__ == "__main__":
    harness.main("recall", measure)
