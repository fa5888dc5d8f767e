"""Where and how a run is computed: Lightning Fabric's processes, devices and precisions.

Importing this takes seconds, as it brings Lightning: only commands that train or evaluate do.
"""

import atexit
import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from regard.app.training.batches import random_state_kept
from regard.app.training.errors import Failure, blaming_torchvision, reason
from regard.app.training.progress import Tell
from regard.recipes.base import Recipe

with blaming_torchvision():
    from lightning.fabric import Fabric
    from lightning.fabric.utilities import rank_zero_only
    from lightning.fabric.utilities.exceptions import MisconfigurationException

Said = TypeVar("Said")


@dataclass
class Fit:
    """How to compute a run, which changes nothing of what is computed but rounding and, with several devices, chance.

    >>> Fit(devices=2, threads=1).precision
    '32-true'
    """

    devices: int = 1
    """Processes on this machine; they share each batch."""
    nodes: int = 1
    """Machines, each started by torchrun or SLURM."""
    accelerator: str = "auto"
    """Where to compute: cpu, gpu, mps, ... or auto."""
    precision: str = "32-true"
    """32-true, or bf16-mixed, which computes in bfloat16 what can bear it, or another of Lightning's."""
    strategy: str = "auto"
    """How processes work together: ddp, fsdp, ... or auto."""
    threads: int | None = None
    """Threads of each process; torch's default if not given."""
    workers: int = 0
    """Processes beside each that prepare batches; 0 prepares them in place."""
    deterministic: bool = False
    """Use only algorithms that give the same bits each time, which a GPU does not by itself."""
    progress: Literal["bar", "none"] | Tell = "bar"
    """bar shows a progress bar and says what happens, none is silent; a function is called with (fraction, logs)."""


class Step(nn.Module):
    """A recipe's model with its `loss` and `evaluate` as one forward pass, which a strategy such as DDP wraps."""

    def __init__(self, recipe: Recipe, model: nn.Module):
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, what: Literal["loss", "evaluate"], batch: dict[str, Tensor]) -> Any:
        return (self.recipe.loss if what == "loss" else self.recipe.evaluate)(self.model, batch)


@contextmanager
def launched(fit: Fit) -> Iterator[Fabric]:
    """Fabric with its processes started. Random numbers, threads and settings are as they were afterwards.

    When processes stop together, the first speaks for all, and ends those that it has started. Raises Failure if the
    machine lacks what is asked for.
    """
    machine = {name: getattr(fit, name) for name in ("accelerator", "devices", "precision", "strategy")}
    with _threads(fit.threads), _deterministic(fit.deterministic), _quiet():
        try:
            fabric = Fabric(num_nodes=fit.nodes, **machine)
            fabric.launch()
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise Failure(f"training cannot be set up as asked: {reason(error)}.") from error
        try:
            with random_state_kept(fabric.device):
                yield fabric
        except BaseException as error:
            if isinstance(error, Failure) and not fabric.is_global_zero:
                raise SystemExit(0) from None
            _end_processes(fabric)
            raise


def _end_processes(fabric: Fabric) -> None:
    """Ends the processes that this one has started."""
    started = getattr(fabric.strategy.launcher, "procs", [])
    for process in started:
        process.kill()
    started.clear()  # or Lightning, which watches over them, would end this process too


def is_first() -> bool:
    """Whether this is the first of the processes that share a run."""
    return rank_zero_only.rank == 0


def first_says(fabric: Fabric, say: Callable[[], Said]) -> Said:
    """What a function returns that the first process alone calls. Raises Failure in all of them if it does there."""
    said: Said | Failure | None = None
    if fabric.is_global_zero:
        try:
            said = say()
        except Failure as failure:
            said = failure
    said = fabric.broadcast(said)
    if isinstance(said, Failure):
        raise said
    return said  # type: ignore[return-value]


@atexit.register
def _leave_group() -> None:
    """Ends what binds the processes while Python still runs: left to C++, it may abort (pytorch#190489)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # or a DistributedDataParallel has it end later, in a destructor that may wait for ever
        torch.distributed.destroy_process_group()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Sets the number of threads, here and for the processes that Lightning starts."""
    before, environment = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    if count is not None:
        torch.set_num_threads(count)
        os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop("OMP_NUM_THREADS", None)
        if environment is not None:
            os.environ["OMP_NUM_THREADS"] = environment


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Has torch use only algorithms that give the same bits each time, if wanted."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's tips to itself."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
