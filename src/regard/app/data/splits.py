"""What a recipe learns from: a split of examples for training, one for choosing, one for the final figure."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Int, Integer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@runtime_checkable
class Split(Protocol):
    """Examples that are built a whole batch at a time."""

    def __len__(self) -> int: ...

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The examples at `indices`; what is random in them is drawn from `generator`, or fixed by the index."""
        ...


class Splits(NamedTuple):
    """The splits of one data set, the sentence that says which data they are, and what a model must fit.

    `classes` are the names that the labels 0, 1, ... stand for; `shape` is (C, Y, X) of every image. Both are empty
    where the data are no labelled images. A split that was not asked for is empty.

    >>> from regard.app.data import load
    >>> splits = load("embedded", canvas=60, clutter=4)
    >>> len(splits.train), len(splits.valid), len(splits.test), splits.shape
    (9000, 1000, 2000, (1, 60, 60))
    """

    train: Split
    valid: Split
    test: Split
    describe: str
    classes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()


def spelled_by(splits: Splits, vocabulary: Any) -> Splits:
    """Splits of texts, all in the numbers of another vocabulary."""
    train, valid, test = (part.spelled_by(vocabulary) for part in cast(Any, splits[:3]))
    return splits._replace(train=train, valid=valid, test=test)


def padded(rows: Sequence[Tensor], value: int = 0) -> Int[Tensor, "N K"]:
    """Rows of numbers below each other, the shorter ones followed by `value`; there may be none.

    >>> padded([torch.tensor([3, 4]), torch.tensor([5])])
    tensor([[3, 4],
            [5, 0]])
    """
    if not rows:
        return torch.zeros(0, 0, dtype=torch.long)
    return pad_sequence(list(rows), batch_first=True, padding_value=value)


def hold_out(labels: Integer[Tensor, " N"], seed: int = 0) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held"]]:
    """The indices of the examples to keep and of the tenth to hold out, each ascending.

    The examples are shuffled with `seed` and sorted by label, and every tenth is held out: each class gives its
    share, and the same examples are held out on every machine and in every run.

    >>> kept, held = hold_out(torch.arange(20) % 2)
    >>> len(kept), len(held), (held % 2).tolist().count(0)
    (18, 2, 1)
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_label = shuffled[labels[shuffled].argsort(stable=True)]
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[by_label[::10]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def count(train: Split, valid: Split, test: Split) -> str:
    """How many examples there are, in words.

    >>> from regard.app.data import digits
    >>> count(*digits()[:3])
    '9,000 training, 1,000 validation and 2,000 test images'
    """
    return f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test images"
