"""Which examples, in which order, with which random numbers: a function of (seed, epoch, step, process) alone."""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regard.app.training.errors import Failure

SPREAD = 0.2
"""How much longer or shorter, as a share, an example of a batch may be than another so that batches differ."""


def mix(*parts: object) -> int:
    """64 bits that depend on all the parts and on nothing else, to seed generators with.

    >>> mix(0, "train", 3, 17) == mix(0, "train", 3, 17), mix(0, "train", 3, 17) == mix(0, "train", 3, 18)
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest())


def sow(seed: int, device: torch.device) -> None:
    """Seeds the default generators of torch, on the CPU and the device, NumPy and Python.

    (`torch.manual_seed` takes 70 times as long, as it notes the stack for a CUDA that may come later.)
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for what draws from NumPy's global generator
    random.seed(seed)


class Order:
    """The batches of an epoch, as (indices, seed): this process's share of each, from step `start` on.

    In training the examples are in a new order each epoch, and those that fill no batch wait for another; else they
    are in their own order, in batches as equal as can be, the same in every epoch. Where `lengths` (count,) are given,
    a batch is of examples about as long as each other, so that little of it is padding.

    Raises Failure if the processes cannot share a batch equally.

    >>> [indices.tolist() for indices, seed in Order(count=5, batch=2, seed=0, shuffled=False)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        count: int,
        batch: int,
        seed: int,
        shuffled: bool,
        rank: int = 0,
        world: int = 1,
        lengths: Tensor | None = None,
    ):
        batch = min(batch, count - count % world)
        if batch == 0 or batch % world:
            raise Failure(f"{world} processes cannot share batches of {batch} examples equally.")
        self.count, self.batch, self.seed, self.shuffled = count, batch, seed, shuffled
        self.rank, self.world, self.lengths = rank, world, lengths
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this when an epoch begins."""
        self.epoch = epoch if self.shuffled else 0

    def __len__(self) -> int:
        return self.count // self.batch if self.shuffled else -(-self.count // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        start, self.start = self.start, 0
        batches = torch.tensor_split(self._examples(), len(self))
        for step in range(start, len(self)):
            seed = mix(self.seed, self.shuffled, self.epoch, step, self.rank)
            yield batches[step][self.rank :: self.world], seed

    def _examples(self) -> Tensor:
        if not self.shuffled:
            return torch.arange(self.count) if self.lengths is None else self.lengths.argsort(stable=True)
        generator = torch.Generator().manual_seed(mix(self.seed, "order", self.epoch))
        examples = torch.randperm(self.count, generator=generator)[: len(self) * self.batch]
        if self.lengths is None:
            return examples
        about = self.lengths[examples] * (1 + SPREAD * torch.rand(len(examples), generator=generator))
        batches = examples[about.argsort()].view(len(self), self.batch)
        return batches[torch.randperm(len(self), generator=generator)].flatten()


class Built(Dataset):
    """A split as the loader sees it: an item (indices, seed) of the order is a batch that is built for it."""

    def __init__(self, split: Any, fresh: bool):
        self.split, self.fresh = split, fresh

    def __getitem__(self, item: tuple[Tensor, int]) -> tuple[dict[str, Tensor], int]:
        indices, seed = item
        generator = torch.Generator().manual_seed(mix(seed, "data")) if self.fresh else None
        return self.split.batch(indices, generator), seed


class Loader(DataLoader):
    """A loader that Lightning lets be resumed in the middle of an epoch; where it is, `Batches` knows."""

    def __init__(self, split: Any, order: Order, workers: int):
        built = Built(split, fresh=order.shuffled)
        super().__init__(built, None, sampler=order, num_workers=workers, collate_fn=_as_it_is)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _as_it_is(batch: Any) -> Any:
    """What the loader does to a batch that is built already."""
    return batch
