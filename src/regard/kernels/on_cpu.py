"""Kernels for the CPU: Python functions that numba compiles, over blocks of rows in threads of our own.

numba's own threads abort the process when two callers meet; these kernels are serial, release the interpreter's lock,
and are called from a pool that is as large as torch says, `torch.get_num_threads()`, and made anew after a fork.
"""

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from inspect import unwrap
from itertools import pairwise
from threading import Timer
from typing import Any

import torch

FAST = {"contract", "reassoc", "arcp", "nsz"}
"""Of the liberties that a compiler may take with sums, those under which NaN and infinity stay what they are."""

PATIENCE = 1.0
"""Seconds after which it is said that a kernel is being compiled."""


def compiled(function: Callable) -> Any:
    """The function as numba compiles it when it is first called, or as it lies in the cache on the disk."""
    import numba

    function = unwrap(function)  # or numba would compile the shape checks that tests put round every function
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**options)(function)


def blocks(rows: int) -> list[tuple[int, int]]:
    """So many rows cut into as many parts as torch may use threads.

    >>> blocks(5)
    [(0, 5)]
    """
    count = max(1, min(rows, torch.get_num_threads()))
    edges = [rows * number // count for number in range(count + 1)]
    return list(pairwise(edges))


def run(kernel: Any, tasks: Iterable[tuple]) -> None:
    """Calls the compiled kernel with the arguments of each task, all but the first in the pool."""
    first, *others = tasks
    if not kernel.overloads:  # compiled before others want it too
        with _announced(kernel.__name__):
            kernel(*first)
        first, *others = *others, None
    waiting = [_pool().submit(kernel, *task) for task in others if task]
    if first:
        kernel(*first)
    for each in waiting:
        each.result()


def apart(function: Callable, *given: Any) -> Any:
    """What the function gives in a thread of the pool, where no mode of torch is on: inside an op gradients are off."""
    return _pool().submit(function, *given).result()


@contextmanager
def _announced(name: str):
    """Says so if it takes long, as where nothing is cached yet."""
    sentence = f"regard compiles its kernel {name} for this machine, once: it takes some seconds."
    timer = Timer(PATIENCE, lambda: print(sentence, file=sys.stderr, flush=True))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="regard")


os.register_at_fork(after_in_child=_pool.cache_clear)
