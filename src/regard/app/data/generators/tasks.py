"""Tasks for a machine with a memory: sequences of bits that are shown, and those that it has to answer with.

Graves et al. 2014, "Neural Turing machines", section 4: copy, repeat copy, associative recall, dynamic N-grams and
priority sort; and reverse (Zaremba and Sutskever 2015). A step shows a vector of bits as -1 and 1, or nothing, zeros,
and has two channels more, by which the task marks its steps.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

CHANNELS = 2
"""Beside the bits, of each step: where a sequence ends, and what else the task says."""
ITEM, REPEATS, CONTEXT, RUN = 3, 10, 5, 10
"""Vectors of an item of associative recall, repeats of repeat copy at most, bits that an N-gram depends on, and how
many of its bits count as one vector."""


class Episode(NamedTuple):
    """B sequences of T steps."""

    input: Float[Tensor, "B T D"]
    """What is shown: bits as -1 and 1, and the channels."""
    target: Float[Tensor, "B T W"]
    """The bits, 0 or 1, that are to be answered; zero where nothing is asked."""
    asked: Bool[Tensor, "B T"]
    """Where an answer is asked for."""

    @property
    def bits(self) -> Tensor:
        """How many bits are asked for."""
        return self.asked.sum() * self.target.shape[-1]

    def costs(self, logits: Float[Tensor, "*S B T W"]) -> Float[Tensor, "*S B T"]:
        """The cross-entropy of the bits of each step, in nats a bit; zero where nothing is asked."""
        target = self.target.expand_as(logits)
        return binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1) * self.asked

    def wrong(self, logits: Float[Tensor, "B T W"]) -> Float[Tensor, " B"]:
        """How many of the bits that are asked for are wrong."""
        wrong = ((logits > 0) != (self.target > 0)) & self.asked.unsqueeze(-1)
        return wrong.flatten(1).sum(1).float()


Numbers = Float[Tensor, "B L N"]
"""Uniform ones in [0, 1), of which a task makes B sequences of L vectors."""


def copy(numbers: Numbers) -> Episode:
    """The sequence again, once it has ended."""
    bits = (numbers > 0.5).float()
    return answered(ended(bits), bits)


def reverse(numbers: Numbers) -> Episode:
    """The sequence from its end to its beginning."""
    bits = (numbers > 0.5).float()
    return answered(ended(bits), bits.flip(1))


def repeat(numbers: Numbers) -> Episode:
    """The sequence several times, as often as the second channel says at its end, as a share of ten; at most as often
    as it is long."""
    bits, longest = (numbers[..., :-1] > 0.5).float(), min(REPEATS, numbers.shape[1])
    times = 1 + (numbers[:, 0, -1] * longest).long()
    shown, length = ended(bits), bits.shape[1]
    shown[:, -1, -1] = times / REPEATS
    return answered(shown, bits.repeat(1, longest, 1), length * times)


def associative(numbers: Numbers) -> Episode:
    """Items of three vectors, each after a mark; then one of them is shown again, after another mark, and the item that
    came after it is asked for. There are L items, and at least two."""
    numbers = numbers.repeat(1, 2, 1) if numbers.shape[1] == 1 else numbers
    count, length, _ = numbers.shape
    items = (numbers[..., :-1] > 0.5).float().unflatten(-1, (ITEM, -1))  # (B, L, 3, W)
    rows, which = torch.arange(count), (numbers[:, 0, -1] * (length - 1)).long()
    query = items[rows, which].unsqueeze(1)
    marked = torch.nn.functional.pad(torch.cat((2 * items - 1, 2 * query - 1), 1), (0, CHANNELS, 1, 0))
    marked[:, :length, 0, -2] = marked[:, length, 0, -1] = 1
    end = torch.nn.functional.pad(torch.ones(count, 1, 1), (marked.shape[-1] - 1, 0))
    return answered(torch.cat((marked.flatten(1, 2), end), 1), items[rows, which + 1])


def sort(numbers: Numbers) -> Episode:
    """The vectors in the order of their priorities, the highest first, which the second channel has beside each."""
    bits, priority = (numbers[..., :-1] > 0.5).float(), 2 * numbers[..., -1] - 1
    order = priority.argsort(1, descending=True).unsqueeze(-1)
    shown = ended(bits)
    shown[:, :-1, -1] = priority
    return answered(shown, bits.gather(1, order.expand_as(bits)))


def ngrams(numbers: Numbers) -> Episode:
    """The next bit of a sequence in which a bit depends on the five before it, by a table of probabilities that is
    another in each sequence: each from Beta(1/2, 1/2), which is sin^2(pi u / 2) of a uniform u. Ten bits are a vector
    of L."""
    count, length, _ = numbers.shape
    rows, context = torch.arange(count), torch.zeros(count, dtype=torch.long)
    chances = (numbers[:, 0, RUN:] * math.pi / 2).sin().square()  # (B, 32)
    bits = []
    for number in numbers[..., :RUN].flatten(1).unbind(1):
        bits.append((number < chances[rows, context]).float())
        context = (2 * context + bits[-1].long()) % 2**CONTEXT
    sequence = torch.stack(bits, 1).unsqueeze(-1)  # (B, T, 1)
    shown = torch.nn.functional.pad(2 * sequence - 1, (0, CHANNELS))
    asked = torch.arange(length * RUN - 1) >= CONTEXT - 1
    target = sequence[:, 1:] * asked.unsqueeze(-1)
    return Episode(shown[:, :-1], target, asked.expand(count, -1))


class Task(NamedTuple):
    """What makes sequences, of how many numbers a vector, given its bits, and how many times longer than in training
    those are that a machine is judged by."""

    make: Callable[[Tensor], Episode]
    numbers: Callable[[int], int]
    longer: int = 6


TASKS = {
    "copy": Task(copy, lambda bits: bits),
    "reverse": Task(reverse, lambda bits: bits),
    "repeat": Task(repeat, lambda bits: bits + 1, longer=2),
    "associative": Task(associative, lambda bits: ITEM * bits + 1, longer=2),
    "sort": Task(sort, lambda bits: bits + 1),
    "ngrams": Task(ngrams, lambda bits: RUN + 2**CONTEXT),
}


class Drawn:
    """The numbers of which a task makes sequences of up to `longest` vectors, as a split.

    With `seed=None` they are drawn afresh for every batch, with the generator that it is given; else fixed by the
    index.

    >>> batch = Drawn(TASKS["copy"], 100, longest=4, bits=8, seed=0).batch(torch.tensor([3, 7]))
    >>> copy(batch["numbers"]).input.shape
    torch.Size([2, 9, 10])
    """

    def __init__(self, task: Task, count: int, longest: int, bits: int, seed: int | None = None):
        self.count, self.shape = count, (longest, task.numbers(bits))
        generator = torch.Generator().manual_seed(seed or 0)
        self.fixed = None if seed is None else torch.rand(count, *self.shape, generator=generator)

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """`numbers` (B, L, N) of the sequences at `indices`, and their `index` (B,)."""
        fixed = self.fixed
        numbers = torch.rand(len(indices), *self.shape, generator=generator) if fixed is None else fixed[indices]
        return {"numbers": numbers, "index": indices}


def ended(bits: Float[Tensor, "B L W"]) -> Float[Tensor, "B L_1 D"]:
    """Vectors of bits as they are shown, and a step that marks their end.

    >>> ended(torch.tensor([[[0.0, 1.0]]]))
    tensor([[[-1.,  1.,  0.,  0.],
             [ 0.,  0.,  1.,  0.]]])
    """
    shown = torch.nn.functional.pad(2 * bits - 1, (0, CHANNELS, 0, 1))
    shown[:, -1] = 0
    shown[:, -1, -CHANNELS] = 1
    return shown


def answered(
    shown: Float[Tensor, "B I D"], target: Float[Tensor, "B O W"], count: Int[Tensor, " B"] | None = None
) -> Episode:
    """What is shown, and after it nothing while the target is asked for: all of it, or the first `count` vectors."""
    before, after = shown.shape[1], target.shape[1]
    steps = torch.arange(before + after) - before
    most = torch.full((len(shown),), after) if count is None else count
    asked = (steps >= 0) & (steps < most.unsqueeze(-1))
    target = torch.nn.functional.pad(target, (0, 0, before, 0)) * asked.unsqueeze(-1)
    return Episode(torch.nn.functional.pad(shown, (0, 0, 0, after)), target, asked)
