"""What a dereference costs: soft addressing reads and writes every cell of a memory, hard addressing one.

    regard bench memory --out benchmarks/results/memory.json --figure docs/pictures/memory.png

A step reads from a memory of K cells of 20 numbers and writes to it, forward and backward, for K from 10^2 to 10^6.
Hard (ours): a pointer draws one of three moves, reads the cell where it has come and writes to it, in place. Soft (the
peer): weights by content, by where it looked before and by a move, the mean that is read, and a write to every cell.
Times are the processor's, for a step: those of a sequence over its steps; to make the memory is not timed. Memory is
what torch allocates in a sequence of one step, beside the memory itself: the gradient of `Cells` is a tensor of their
size, of which the system makes the pages that are touched. The limit is to gather and to scatter a cell.
"""

import statistics
import time
from collections.abc import Callable, Iterable

import harness
import torch
from matplotlib.figure import Figure
from torch import Tensor

import regard as rg

PLACES = (10**2, 10**3, 10**4, 10**5, 10**6)
WIDTH, QUERY, STEPS, SOFT_STEPS = 20, 32, 20, 2
PEER = "soft addressing: every cell is read and written"
LIMIT = "gathering and scattering one cell"


class Hard:
    """Some steps of a pointer over a memory of K cells."""

    def __init__(self, places: int, steps: int = STEPS):
        self.places, self.steps = places, steps
        self.moves = torch.nn.Linear(QUERY, 3)

    def prepare(self) -> Callable[[], None]:
        """A sequence over a new memory."""
        cells, query = rg.Cells(torch.zeros(1, self.places, WIDTH)), torch.randn(self.steps, 1, 1, QUERY)
        erase = torch.rand(1, 1, WIDTH, requires_grad=True)
        return lambda: self.run(cells, query, erase)

    def run(self, cells: rg.Cells, query: Tensor, erase: Tensor) -> None:
        place, total = torch.full((1, 1), self.places // 2), torch.zeros(())
        for each in query:
            targets = (place.unsqueeze(-1) + rg.offsets(3)) % self.places
            positions = rg.Pointer(scores=self.moves(each), targets=targets, count=self.places)
            place = positions.sample()
            seen = cells.read(place)
            rg.write(cells, positions, erase, 1 - erase, place)
            total = total + seen.sum() + positions.log_prob(place).sum()
        total.backward()


class Soft:
    """Some steps of a head over a memory of K cells."""

    def __init__(self, places: int, steps: int = SOFT_STEPS):
        self.places, self.steps = places, steps
        self.head = rg.Attention(rg.Content(QUERY, WIDTH), rg.addressing(QUERY))

    def prepare(self) -> Callable[[], None]:
        """A sequence over a new memory."""
        memory, query = torch.randn(1, self.places, WIDTH), torch.randn(self.steps, 1, 1, QUERY)
        erase = torch.rand(1, 1, WIDTH, requires_grad=True)
        return lambda: self.run(memory, query, erase)

    def run(self, memory: Tensor, query: Tensor, erase: Tensor) -> None:
        state, total = None, torch.zeros(())
        for each in query:
            out = self.head(each, self.head.prepare(memory, memory), state)
            memory, state = rg.write(memory, out.positions, erase, 1 - erase), out.state
            total = total + out.context.sum()
        (total + memory[0, 0].sum()).backward()


class One:
    """A cell, so many times."""

    def __init__(self, places: int, steps: int = STEPS):
        self.places, self.steps = places, steps

    def prepare(self) -> Callable[[], None]:
        memory, index = torch.zeros(1, self.places, WIDTH), torch.full((1, 1, WIDTH), self.places // 2)

        def copy() -> None:
            for _ in range(self.steps):
                memory.scatter_(1, index, memory.gather(1, index) + 1)

        return copy


def milliseconds(sequence: Hard | Soft | One) -> float:
    """The time of one of its steps."""
    call = sequence.prepare()
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3 / sequence.steps


def measure(rounds: int) -> Iterable[harness.Row]:
    """A row for each number of cells; one round of all of them, in turn, after another."""
    torch.manual_seed(0)
    sequences = {places: (Hard(places), Soft(places), One(places)) for places in PLACES}
    for each in sequences.values():
        for sequence in each:
            milliseconds(sequence)
    times: dict[int, list[list[float]]] = {places: [] for places in PLACES}
    for _ in range(rounds):
        for places, each in sequences.items():
            times[places].append([milliseconds(sequence) for sequence in each])
    for places in PLACES:
        yield row(places, times[places])


def row(places: int, times: list[list[float]]) -> harness.Row:
    """What the rounds found."""
    hard_ms, soft_ms, limit_ms = (statistics.median(each) for each in zip(*times, strict=True))
    ratios = [soft / hard for hard, soft, _ in times]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    hard_mb, soft_mb = (harness.peak_mb(kind(places, steps=1).prepare()) for kind in (Hard, Soft))
    return harness.Row(
        f"a read and a write, K = {places:,}", PEER, hard_ms, soft_ms, middle, (low, high), hard_mb, soft_mb,
        limit_ms, LIMIT, None, items=1,
    )  # fmt: skip


def draw(rows: list[dict]) -> Figure:
    """Time and memory of a step by the number of cells."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, unit in zip(figure.subplots(1, 2), ("ms", "peak_mb"), strict=True):
        for name, whose, colour in (("soft", "peer", "#d55e00"), ("hard", "ours", "#0072b2")):
            axes.loglog(PLACES, [row[f"{whose}_{unit}"] for row in rows], "o-", c=colour, label=name)
        axes.set(xlabel="cells", ylabel="milliseconds a step" if unit == "ms" else "megabytes a step")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    harness.main("memory", measure, draw)
