"""Spans of words that together are a binary tree."""

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import comb
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from regard.positions.algorithms import constituency
from regard.positions.algorithms.recurrence import NEVER
from regard.positions.base import Positions, exported, take, weighted_mean, wide
from regard.positions.chain import spanning
from regard.positions.several import check_enumerable
from regard.positions.structure import NO_EVENT, Structure, chosen, may_be_read

Span = tuple[int, int]


@exported
@dataclass(eq=False, repr=False)
class Constituency(Structure):
    """Binary trees over K words with a label for each of their 2 K - 1 spans, which are the words themselves, all words
    together, and each other span with the two that it consists of: p(z) is proportional to the exponential of the sum
    of scores_{i, j, s} over the spans from word i to word j of label s (Stern, Andreas and Klein 2017, section 2).

    One event is a table: at (i, j) the label of the span from word i to word j, and -1 where that is none. An absent
    word is left out, as if those on its two sides were neighbours; what the scores are below the diagonal is without
    effect. As attention, the words are the queries: word i reads the values at the ends of all spans that begin with
    it.

    Shapes: scores (*B, K, K, S), present (*B, K); batch_shape (*B), event_shape (K, K). Unless it is `labelled` there
    is one label, and `mean` and `indicator` have no dimension of labels. `log_z`, `mean`, `entropy`, `kl` and `mode`
    take time O(K^3 + K^2 S), a draw O(K^2) after that, the k best O(K^3 k log k).

    >>> positions = Constituency(torch.zeros(3, 3, 2), torch.ones(3, dtype=torch.bool))
    >>> positions.log_z.exp(), positions.mean[0, 1]
    (tensor(64.), tensor([0.2500, 0.2500]))
    """

    scores: Float[Tensor, "*B K K S"]
    present: Bool[Tensor, "*B K"]
    labelled: bool = True

    def __post_init__(self) -> None:
        super().__init__(self.scores.shape[:-3], self.scores.shape[-3:-1], validate_args=False)

    @property
    def choices(self) -> int:
        return self.scores.shape[-1]

    @property
    def potentials(self) -> Float[Tensor, "*B P"]:
        return wide(self.scores).flatten(-3)

    @property
    def log_z(self) -> Float[Tensor, "*B"]:
        return constituency.log_partition(self._of_spans, self.present)

    @property
    def marginals(self) -> Float[Tensor, "*B P"]:
        return self._mean.flatten(-3)

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """The probability of each span, (*B, K, K), or of each with each label, (*B, K, K, S)."""
        return (self._mean if self.labelled else self._mean.squeeze(-1)).to(self.scores.dtype)

    def features(self, z: Integer[Tensor, "*SB K K"]) -> Float[Tensor, "*SB P"]:
        return self._labels(z).to(wide(self.scores).dtype).flatten(-3)

    def indicator(self, z: Integer[Tensor, "*SB K K"]) -> Float[Tensor, "..."]:
        """The spans as a 0/1 tensor, (*SB, K, K), or with their labels (*SB, K, K, S)."""
        labels = self._labels(z).to(self.scores.dtype)
        return labels if self.labelled else labels.squeeze(-1)

    def _score(self, z: Tensor) -> Tensor:
        return chosen(wide(self.scores), z.unsqueeze(-1)).squeeze(-1).sum((-1, -2))

    def k_best(self, k: int) -> Int[Tensor, "k *B K K"]:
        return constituency.k_best(wide(self.scores), self.present, k)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB K K"]:
        """A random tree, from the whole sentence down to its words, and then a label for each of its spans."""
        spans = constituency.sample(self._of_spans.detach(), self.present, torch.Size(sample_shape)).long()
        if self.choices == 1:
            return spans - 1
        count = min(max(2 * self.present.shape[-1] - 1, 0), spans.shape[-1] ** 2)
        where = spans.flatten(-2).topk(count, -1).indices  # (*SB, 2 K - 1)
        scores = take(wide(self.scores).detach().flatten(-3, -2), where.unsqueeze(-1), -2)  # (*SB, 2 K - 1, S)
        passed = scores.clamp(min=NEVER).double().softmax(-1).cumsum(-1)
        drawn = (passed <= passed[..., -1:] * torch.rand_like(passed[..., :1])).sum(-1)
        labels = torch.zeros_like(spans).flatten(-2).scatter(-1, where, drawn).view_as(spans)
        return labels.where(spans > 0, -1)

    def log_prob(self, value: Integer[Tensor, "*SB K K"]) -> Float[Tensor, "*SB"]:
        """The log-probability of trees, score less log Z; -inf of what is none. Of a tree that was observed it is what
        a conditional random field of spans is trained by.

        Raises ValueError for a label that there is not, where there may be a span (but while compiling and under
        transforms of `torch.func`, where it is impossible).
        """
        return self._log_prob(value)

    def expect(self, values: Any) -> Tensor:
        """What the words read at the mean, (*B, K, V): the values at the ends of the spans that begin with them."""
        return weighted_mean(self._mean.sum(-1).to(self.scores.dtype), values)

    def gather(self, values: Any, z: Integer[Tensor, "*SB K K"]) -> Float[Tensor, "*SB K V"]:
        """The sum of the values (*B, K, V) at the ends of the spans that begin with each word."""
        return weighted_mean(self._labels(z).sum(-1).to(self.scores.dtype), values)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "E *B K K"]:
        """Every tree with every choice of labels, and last -1 throughout. Where an absent word leaves fewer events than
        that, the others are none and have the probability zero.

        Without `expand` the events of a row that lacks nothing.
        """
        words = self.present.shape[-1]
        check_enumerable(_catalan(words - 1) * self.choices ** max(2 * words - 1, 0) + 1)
        if not expand:
            events = self._events(tuple(range(words)))
            return events.view(len(events), *(1 for _ in self.batch_shape), words, words)
        count = self.batch_shape.numel()
        rows = [self._events(tuple(row.nonzero().flatten().tolist())) for row in self.present.reshape(count, words)]
        size = max(map(len, rows), default=1)
        filled = [torch.cat((row, row.new_full((size - len(row), words, words), NO_EVENT))) for row in rows]
        support = torch.stack(filled, 1) if rows else self.present.new_zeros((size, 0, words, words), dtype=torch.long)
        return support.view(size, *self.batch_shape, words, words)

    def then(self, *later: Positions) -> Positions:
        raise spanning(self)

    @property
    def _of_spans(self) -> Tensor:
        """The scores of the spans, those of their labels summed up, (*B, K, K)."""
        scores = wide(self.scores)
        return scores.squeeze(-1) if self.choices == 1 else constituency.of_spans(scores)

    @property
    def _mean(self) -> Tensor:
        spans = constituency.marginals(self._of_spans, self.present).unsqueeze(-1)
        return spans if self.choices == 1 else spans * wide(self.scores).clamp(min=NEVER).softmax(-1)

    @property
    def _spans(self) -> Tensor:
        """What may be a span, (*B, K, K): from one word to itself or to a later one, both present."""
        return (self.present.unsqueeze(-1) & self.present.unsqueeze(-2)).triu()

    def _labels(self, z: Tensor) -> Tensor:
        return self._where_present(z).unsqueeze(-1) == torch.arange(self.choices, device=z.device)

    def _where_present(self, z: Tensor) -> Tensor:
        return z.long().where(self._spans, -1)

    def _checked(self, value: Tensor) -> Tensor:
        z = self._where_present(value)
        if may_be_read(z):
            outside = ((z < -1) | (z >= self.choices)) & (value != NO_EVENT)
            if outside.any():
                raise ValueError(
                    f"value expected labels from 0 to {self.choices - 1} where there is a span, or -1 for none, "
                    f"but got {z[outside][0]}."
                )
        return z

    def _is_structure(self, z: Tensor) -> Tensor:
        """The words, the whole, two spans less one word than twice as many, and none that cross."""
        spans, count = (z >= 0) & (z < self.choices), self.present.sum(-1)
        words = (spans.diagonal(dim1=-2, dim2=-1) == self.present).all(-1)
        number = spans.sum((-1, -2)) == (2 * count - 1).clamp(min=0)
        place = self.present.cumsum(-1)
        whole = self._spans & (place == 1).unsqueeze(-1) & (place == count.unsqueeze(-1)).unsqueeze(-2)
        return words & number & ((spans & whole).any((-1, -2)) | (count == 0)) & ~_cross(spans)

    def _events(self, words: tuple[int, ...]) -> Tensor:
        """The events (E, K, K) of the words that are present."""
        size = self.present.shape[-1]
        events = []
        for spans in _trees(0, len(words) - 1):
            for labels in product(range(self.choices), repeat=len(spans)):
                table = torch.full((size, size), -1, device=self.device)
                for (first, last), label in zip(spans, labels, strict=True):
                    table[words[first], words[last]] = label
                events.append(table)
        nothing = torch.full((size, size), -1, device=self.device)
        return torch.stack([*events, nothing] if words else [nothing])


def _cross(spans: Tensor) -> Tensor:
    """Whether one of the spans (*S, *B, K, K) begins in another and ends after it."""
    here = spans.int()
    longer = here.flip(-1).cumsum(-1).flip(-1) - here  # at (i, j): how many begin with i and end after j
    passed = longer.cumsum(-2)
    crossing = passed.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) - passed  # that begin after i, up to j, and end after j
    return ((crossing > 0) & spans).any((-1, -2))


@cache
def _trees(first: int, last: int) -> tuple[tuple[Span, ...], ...]:
    """The spans of every binary tree of the words from first to last."""
    if first >= last:
        return (((first, last),) if first == last else (),)
    return tuple(
        ((first, last), *one, *other)
        for middle in range(first, last)
        for one in _trees(first, middle)
        for other in _trees(middle + 1, last)
    )


def _catalan(number: int) -> int:
    return comb(2 * number, number) // (number + 1) if number > 0 else 1
