"""Greedy and beam search: against all sequences there are, on models that are small enough for that."""

from itertools import product

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.app.text.decoding import beam, greedy

BEGIN, END, WORDS = 1, 2, 4


class Toy:
    """A model whose log-probabilities depend on the row and on all words so far, which its state remembers.

    The state also holds a Memory, as that of a decoder does; `asked` counts the rows of each step.
    """

    def __init__(self, rows: int, seed: int = 0, end: float = 0.0):
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(rows, 997, WORDS, generator=generator, dtype=torch.float64)
        self.table[..., END] += end
        self.asked: list[int] = []

    def state(self) -> tuple[Tensor, rg.Memory]:
        rows = torch.arange(len(self.table))
        keys = rows.double().view(-1, 1, 1)
        return torch.stack((rows, torch.zeros_like(rows)), -1), rg.Memory(keys, keys)

    def step(self, words: Tensor, state: tuple[Tensor, rg.Memory]) -> tuple[Tensor, tuple[Tensor, rg.Memory]]:
        known, memory = state
        assert (memory.keys.flatten() == known[:, 0]).all(), "the parts of a state stay together"
        self.asked.append(len(words))
        row, past = known.unbind(-1)
        past = (past * 31 + words + 7) % 997
        return self.table[row, past].log_softmax(-1), (torch.stack((row, past), -1), memory)

    def log_prob(self, row: int, words: tuple[int, ...]) -> float:
        """Of a whole sequence, `end` included if it is there."""
        past, total = (0 * 31 + BEGIN + 7) % 997, 0.0
        for word in words:
            total += float(self.table[row, past].log_softmax(-1)[word])
            past = (past * 31 + word + 7) % 997
        return total


def sequences(longest: int) -> list[tuple[int, ...]]:
    """All that end, and those of the greatest length that do not."""
    others = [word for word in range(WORDS) if word != END]
    ended = [(*words, END) for length in range(longest) for words in product(others, repeat=length)]
    return ended + list(product(others, repeat=longest))


def best(toy: Toy, row: int, longest: int, normalise: float) -> list[int]:
    found = max(sequences(longest), key=lambda words: toy.log_prob(row, words) / len(words) ** normalise)
    return [word for word in found if word != END]


@pytest.mark.parametrize("normalise", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("end", [-2.0, 0.0, 1.0])
def test_a_beam_that_holds_everything_finds_the_best_of_all(normalise: float, end: float):
    toy, longest = Toy(rows=6, end=end), torch.tensor([4, 1, 3, 4, 2, 4])
    found = beam(toy.step, toy.state(), longest, size=WORDS**4, normalise=normalise)
    assert [words.tolist() for words in found] == [best(toy, n, int(most), normalise) for n, most in enumerate(longest)]


def test_the_length_matters():
    toy, longest = Toy(rows=40, end=1.0), torch.full((40,), 4)
    lengths = [
        sum(len(words) for words in beam(toy.step, toy.state(), longest, size=WORDS**4, normalise=normalise))
        for normalise in (0.0, 1.0)
    ]
    assert lengths[0] < lengths[1]


def score(toy: Toy, row: int, words: Tensor, longest: int) -> float:
    whole = (*words.tolist(), END)[:longest]
    return toy.log_prob(row, whole) / len(whole)


def test_a_wider_beam_finds_better_ones():
    toy, longest = Toy(rows=100, end=-1.0), torch.full((100,), 4)
    means = []
    for size in (1, 2, 64, 256):
        found = beam(toy.step, toy.state(), longest, size=size)
        means.append(sum(score(toy, n, words, 4) for n, words in enumerate(found)))
    assert means[0] < means[1] < means[2] <= means[3]


@pytest.mark.parametrize("end", [-3.0, 0.0, 2.0])
def test_greedy_is_a_beam_of_one(end: float):
    toy, longest = Toy(rows=30, end=end), torch.arange(30) % 9 + 1
    ours, theirs = (
        [words.tolist() for words in find(toy.step, toy.state(), longest)]
        for find in (greedy, lambda *arguments: beam(*arguments, size=1))
    )
    assert ours == theirs
    assert all(len(words) <= most for words, most in zip(ours, longest.tolist(), strict=True))
    assert any(len(words) < most for words, most in zip(ours, longest.tolist(), strict=True)) or end < 0


def test_each_greedy_word_is_the_most_probable():
    toy = Toy(rows=8)
    for row, words in enumerate(greedy(toy.step, toy.state(), torch.full((8,), 20))):
        before: tuple[int, ...] = ()
        for word in [*words.tolist(), END][:20]:
            others = [toy.log_prob(row, (*before, other)) for other in range(WORDS)]
            assert others[word] == max(others)
            before = (*before, word)


@pytest.mark.parametrize("size", [1, 3])
def test_rows_that_are_finished_are_dropped(size: int):
    toy, longest = Toy(rows=20), torch.arange(20) + 1
    (greedy if size == 1 else lambda *arguments: beam(*arguments, size=size))(toy.step, toy.state(), longest)
    later = toy.asked[1:]
    assert toy.asked[0] == 20 and later == sorted(later, reverse=True) and later[-1] < later[0]


@pytest.mark.parametrize("size", [1, 4])
def test_a_row_is_decoded_as_if_it_were_alone(size: int):
    toy, longest = Toy(rows=12), torch.arange(12) % 5 + 1
    together = beam(toy.step, toy.state(), longest, size=size)
    for n in range(12):
        state = rg.select(toy.state(), torch.tensor([n]))
        assert beam(toy.step, state, longest[n : n + 1], size=size)[0].tolist() == together[n].tolist()


def test_no_rows():
    toy = Toy(rows=0)
    assert beam(toy.step, toy.state(), torch.zeros(0, dtype=torch.long)) == []


def test_a_beam_of_none_is_refused():
    with pytest.raises(ValueError, match=r"^beam expected a size of at least 1, but got 0\.$"):
        beam(Toy(1).step, (), torch.tensor([1]), size=0)
