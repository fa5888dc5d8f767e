"""How far training has come: told to a function, tell(fraction, logs), of which a bar in the terminal is one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[float, dict[str, int | float]], object]


def say(sentence: str) -> None:
    """Prints to standard error, so that standard output is left to results."""
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str) -> Iterator[Tell]:
    """A progress bar on standard error, for as long as the context lasts.

    >>> with bar("glimpse") as tell:
    ...     tell(0.5, {"epoch": 1.0, "train_loss": 2.302585})
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    logs = TextColumn("{task.fields[logs]}", markup=False)
    with Progress(*columns, logs, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task(title, total=1.0, logs="")
        yield lambda fraction, logs: progress.update(task, completed=fraction, logs=in_words(logs))


def in_words(logs: dict[str, int | float]) -> str:
    """Numbers on one line, short.

    >>> in_words({"epoch": 1.0, "train_loss": 2.302585})
    'epoch 1  train_loss 2.303'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
