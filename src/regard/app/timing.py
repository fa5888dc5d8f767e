"""Calls that are timed in turn, so that whatever else the machine does falls on all of them alike."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

Call = Callable[[], object]


def interleave(calls: Sequence[Call], rounds: int, round_ms: float | int = 50) -> list[list[float]]:
    """Milliseconds of one call of each, for every round. In a round each runs for about `round_ms`, one after another,
    beginning with another one each time.

    >>> fast, slow = interleave([lambda: None, lambda: time.sleep(0.001)], rounds=3, round_ms=1)
    >>> len(fast), max(fast) < min(slow)
    (3, True)
    """
    counts = [max(1, int(round_ms / max(_milliseconds(call, 1) for _ in range(2)))) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for first in range(rounds):
        for i in ((first + i) % len(calls) for i in range(len(calls))):
            times[i].append(_milliseconds(calls[i], counts[i]))
    return times


def _milliseconds(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) * 1e3 / count


@contextmanager
def one_thread() -> Iterator[None]:
    """Has torch compute on one thread, for as long as the context lasts.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
