"""How far training has come: told to a function, tell(fraction, logs), of which a bar in the terminal is one."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from regard.app.text.reading import printable

Tell = Callable[[float, dict[str, int | float]], object]

SECONDS = 10.0
"""From one line to the next where there is no terminal."""


def say(sentence: str) -> None:
    """Prints to standard error, so that standard output is left to results."""
    print(printable(sentence), file=sys.stderr, flush=True)


@contextmanager
def telling(how: Literal["bar", "none"] | Tell, title: str) -> Iterator[Tell]:
    """What progress is told to: a bar in a terminal, or a line now and then elsewhere; nothing; or a function."""
    if callable(how):
        yield how
    elif how == "none":
        yield lambda fraction, logs: None
    elif sys.stderr.isatty():
        with bar(title) as tell:
            yield tell
    else:
        yield lines(title)


@contextmanager
def bar(title: str) -> Iterator[Tell]:
    """A progress bar on standard error, for as long as the context lasts.

    >>> with bar("glimpse") as tell:
    ...     tell(0.5, {"epoch": 1.0, "train_loss": 2.302585})
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    name, logs = (TextColumn(f"{{task.{text}}}", markup=False) for text in ("description", "fields[logs]"))
    columns = (name, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), logs)
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task(printable(title), total=1.0, logs="")
        yield lambda fraction, logs: progress.update(task, completed=fraction, logs=in_words(logs))


def lines(title: str, seconds: float | int = SECONDS) -> Tell:
    """A line on standard error when so much time has passed since the one before, and at the end.

    >>> tell = lines("glimpse", seconds=60)
    >>> tell(0.5, {"epoch": 1.0, "train_loss": 2.302585})
    """
    due = now_and_then(seconds)

    def tell(fraction: float, logs: dict[str, int | float]) -> None:
        if fraction >= 1 or due():
            say(f"{title}  {fraction:.0%}  {in_words(logs)}")

    return tell


def now_and_then(seconds: float | int = SECONDS) -> Callable[[], bool]:
    """Says whether so much time has passed since it last said so.

    >>> due = now_and_then(seconds=60)
    >>> due(), due()
    (False, False)
    """
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    return due


def in_words(logs: dict[str, int | float]) -> str:
    """Numbers on one line, short.

    >>> in_words({"epoch": 1.0, "train_loss": 2.302585})
    'epoch 1  train_loss 2.303'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
