"""Which examples, in which order, with which random numbers: a function of (seed, epoch, step, process) alone."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

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


def seed_all(seed: int, device: torch.device) -> None:
    """Seeds the default generators of torch, on the CPU and the device, NumPy and Python.

    (`torch.manual_seed` takes 70 times as long, as it notes the stack for a CUDA that may come later.)
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for what draws from NumPy's global generator
    random.seed(seed)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Has the default generators be afterwards what they were before.

    >>> with random_state_kept(torch.device("cpu")):
    ...     seed_all(0, torch.device("cpu"))
    """
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [] if device.type == "cpu" else [device]
    try:
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


class Batch(NamedTuple):
    """Which examples a batch is of, (B,), and the seed of what is random in building it and in what is done with it."""

    indices: Tensor
    seed: int


def training_batches(
    count: int,
    size: int,
    seed: int,
    epoch: int,
    lengths: Tensor | None = None,
    rank: int = 0,
    world: int = 1,
    in_order: bool = False,
) -> list[Batch]:
    """The batches of an epoch, all of one size: the share that this process has in each.

    The examples are in a new order each epoch, unless they must stay `in_order`, and those that fill no batch wait for
    another. Where `lengths` (count,) are given, a batch is of examples about as long as each other, so that little of
    it is padding.

    Raises Failure if the processes cannot share a batch equally.

    >>> [len(batch.indices) for batch in training_batches(count=5, size=2, seed=0, epoch=0)]
    [2, 2]
    """
    size = min(size, count - count % world)
    if size == 0 or size % world:
        raise Failure(f"{world} processes cannot share batches of {size} examples equally.")
    steps = count // size
    generator = torch.Generator().manual_seed(mix(seed, "order", epoch))
    order = torch.arange(count) if in_order else torch.randperm(count, generator=generator)
    examples = order[: steps * size]
    if lengths is not None:
        about = lengths[examples] * (1 + SPREAD * torch.rand(len(examples), generator=generator))
        batches = examples[about.argsort()].view(steps, size)
        examples = batches[torch.randperm(steps, generator=generator)].flatten()
    seeds = (mix(seed, True, epoch, step, rank) for step in range(steps))
    return [Batch(*each) for each in zip(examples.view(steps, size)[:, rank::world], seeds, strict=True)]


def evaluation_batches(count: int, size: int, seed: int, lengths: Tensor | None = None) -> list[Batch]:
    """The batches of a split that is evaluated, each example once, as equal in size as can be; by length, if the
    `lengths` (count,) are given.

    >>> [batch.indices.tolist() for batch in evaluation_batches(count=5, size=2, seed=0)]
    [[0, 1], [2, 3], [4]]
    """
    examples = torch.arange(count) if lengths is None else lengths.argsort(stable=True)
    batches = torch.tensor_split(examples, max(1, -(-count // size)))
    return [Batch(indices, mix(seed, False, 0, step, 0)) for step, indices in enumerate(batches)]


class Built(Dataset):
    """A split as a loader sees it: an item is a batch that is built, and its seed."""

    def __init__(self, split: Any, fresh: bool):
        self.split, self.fresh = split, fresh

    def __getitem__(self, batch: Batch) -> tuple[dict[str, Tensor], int]:
        generator = torch.Generator().manual_seed(mix(batch.seed, "data")) if self.fresh else None
        return self.split.batch(batch.indices, generator), batch.seed


def loaded(split: Any, batches: Sequence[Batch], fresh: bool, workers: int = 0) -> DataLoader:
    """A loader of these batches with their seeds, built by so many processes beside this one; what is random in the
    examples is drawn anew if they are `fresh`, as in training."""
    built, own = Built(split, fresh), torch.Generator()  # or the loader draws from the default one
    return DataLoader(built, None, sampler=batches, num_workers=workers, collate_fn=_as_it_is, generator=own)  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    """What the loader does to a batch that is built already."""
    return batch
