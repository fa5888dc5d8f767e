"""What watches over a run while it is trained: its losses, the signals that ask it to stop, TensorBoard's log."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.app.training.errors import Interrupted
from regard.app.training.files import make_folder
from regard.app.training.metrics import Row

Log = Callable[[Row, int], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Losses:
    """The loss and the logs of the steps of an epoch, averaged over all processes, and whether any was asked to stop.

    They are looked at after every `patience` steps: on an accelerator each look waits for it.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.sums: dict[str, float] = {}
        self.latest: dict[str, Tensor] = {}
        self._waiting: list[dict[str, Tensor]] = []

    def add(self, loss: Tensor, logs: dict[str, Tensor]) -> bool:
        """Takes down a step. Is it time to look?"""
        self.latest = {name: value.detach().clone() for name, value in {"loss": loss, **logs}.items()}
        self._waiting.append(self.latest)
        return len(self._waiting) >= self.patience

    def look(self, fabric: Any, asked: bool) -> list[tuple[float, bool]]:
        """Adds the steps that wait to the sums; the loss of each, and whether any process was asked to stop by then."""
        names, steps = list(self.latest), self._waiting
        table = torch.stack([torch.stack([step[name].float() for name in names]) for step in steps])
        table = torch.cat([table, table.new_full((len(steps), 1), asked)], 1)
        rows = fabric.all_reduce(table, reduce_op="mean").tolist()
        self._waiting = []
        for row in rows:
            self.sums |= {name: self.sums.get(name, 0.0) + value for name, value in zip(names, row, strict=False)}
        return [(row[0], row[-1] > 0) for row in rows]


class Stop:
    """Whether Ctrl-C or SIGTERM asked training to stop, which it does after the step at hand; asked again, at once."""

    def __init__(self) -> None:
        self.asked = False
        self.saved = "no checkpoint had been saved yet"

    def __call__(self, *_: object) -> None:
        if self.asked:
            raise Interrupted(f"stopped at once: {self.saved}.")
        self.asked = True

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Has it be asked by the signals, for as long as the context lasts."""
        if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
            yield
            return
        before = {each: signal.signal(each, self) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


@contextmanager
def logging(run: Path | None) -> Iterator[Log]:
    """What takes down a row of metrics and the step it is of for TensorBoard, in the folder of the run, if one is given
    and the extra `logging` is installed."""
    if run is None or not find_spec("tensorboard"):
        yield lambda row, step: None
        return
    from torch.utils.tensorboard import SummaryWriter

    def log(row: Row, step: int) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    with SummaryWriter(make_folder(run / "tensorboard")) as writer:
        yield log
