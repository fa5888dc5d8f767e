"""What watches over a run while Lightning trains: it keeps what must not be lost, and stops where it must stop."""

import io
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.app.report.glances import Glance, glances, write_learning
from regard.app.training.errors import Failure, Interrupted, blaming_torchvision
from regard.app.training.progress import Tell, say
from regard.app.training.run import Row, best_row, finished, write, write_metrics
from regard.recipes.base import Metric

with blaming_torchvision():
    import lightning.pytorch as pl
    from lightning.pytorch.plugins import TorchCheckpointIO

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = {"cpu": 1}  # steps from one look at the losses to the next: an accelerator would have to be waited for


class SafeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and read without running code. Raises Failure."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write(Path(path), buffer.getbuffer())

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            what = f"{path} is damaged, or holds what could run code"
            raise Failure(f"{what} ({type(error).__name__}): nothing was loaded from it.") from error


class Keeper(pl.Callback):
    """Writes the run's files at the end of each epoch, and stops on a signal or a loss that is not finite.

    The loss and the logs beside it are averaged over the processes and looked at after every step, or on an accelerator
    after every tenth. The sums of an epoch, and the rows and glances so far, go with the checkpoint. The rows are
    written by us, not by Lightning's CSVLogger, which writes the columns of training and of validation into rows of
    their own, and after a resume repeats or loses some.

    Training ends before its last epoch where the configuration has a `patience` that is exhausted.

    Raises Failure if the loss or a weight is not finite (what was saved before stays) or a file cannot be written, and
    Interrupted once `stop` was called, and the step at hand is done, and everything is saved.
    """

    def __init__(self, run: Path, metric: Metric, batches: Any):
        self.run, self.metric, self.batches = run, metric, batches
        self.rows: list[Row] = []
        self.glances: list[Glance] = []
        self.sums: dict[str, float] = {}
        self.steps: list[dict[str, Tensor]] = []  # the logs of the steps that have not been looked at yet
        self.saved = "no checkpoint had been saved yet"
        self.asked, self.warned = False, False

    def stop(self, *_: object) -> None:
        """Has training stop after the step at hand; called again, at once."""
        if self.asked:
            raise Interrupted(f"stopped at once: {self.saved}.")
        self.asked = True

    def on_train_start(self, trainer: pl.Trainer, training: Any) -> None:
        handle(signal.SIGTERM, self.stop)  # Lightning has put a handler of its own in the place of ours
        if self.rows:
            self._write(trainer)  # the files may be an epoch behind the checkpoint

    def on_train_batch_end(self, trainer: pl.Trainer, training: Any, outputs: Any, batch: Any, index: int) -> None:
        training.recipe.after_step(training.model)
        self.steps.append(training.logs)
        last = index + 1 == trainer.num_training_batches
        if last or len(self.steps) >= PATIENCE.get(training.device.type, 10):
            asked = self._look(trainer)
            if asked and not last:
                self._save(trainer, trainer.current_epoch, index + 1)
                self._interrupt(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, training: Any) -> None:
        valid, epoch = self.batches.splits.valid, trainer.current_epoch + 1
        self.glances += glances(training.recipe, training.model, valid, epoch, training.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, training: Any) -> None:
        self.rows.append(self._row(trainer, training))
        self.sums = {}
        self._warn(trainer, training)
        self._save(trainer, trainer.current_epoch + 1, 0)
        self._write(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(self.rows[-1], trainer.global_step)
        asked = trainer.strategy.reduce_boolean_decision(self.asked, all=False)
        trainer.should_stop = finished(self.rows, training.config, self.metric)
        if asked and not trainer.should_stop:
            self._interrupt(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, training: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["keeper"] = {"rows": self.rows, "glances": self.glances, "sums": self.sums}

    def on_load_checkpoint(self, trainer: pl.Trainer, training: Any, checkpoint: dict[str, Any]) -> None:
        self.rows, self.sums = checkpoint["keeper"]["rows"], checkpoint["keeper"]["sums"]
        self.glances = checkpoint["keeper"].get("glances", [])
        self.saved = self._where(checkpoint["global_step"])

    def _look(self, trainer: pl.Trainer) -> bool:
        """Adds the steps that wait to the epoch's sums, if their losses are finite; was any process asked to stop?"""
        names = list(self.steps[0])  # the loss first
        logs = torch.stack([torch.stack([step[name].float() for name in names]) for step in self.steps])
        asked = logs.new_full((len(logs), 1), self.asked)
        table = trainer.strategy.reduce(torch.cat([logs, asked], 1), reduce_op="mean").tolist()
        self.steps = []
        for step, row in enumerate(table, trainer.global_step - len(table) + 1):
            if not isfinite(row[0]):
                raise Failure(f"the loss became {row[0]} at {_place(trainer, step)}: {self.saved}.")
            self.sums |= {name: self.sums.get(name, 0.0) + value for name, value in zip(names, row, strict=False)}
        return any(row[-1] for row in table)

    def _row(self, trainer: pl.Trainer, training: Any) -> Row:
        """What metrics.csv says about the epoch that ends: the means over its steps, and over the validation split."""
        row: Row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row |= {f"train_{name}": total / trainer.num_training_batches for name, total in self.sums.items()}
        return row | {f"valid_{name}": value for name, value in training.means.items()}

    def _write(self, trainer: pl.Trainer) -> None:
        """Writes learning.json and metrics.csv, which says whether training is over, last."""
        if trainer.is_global_zero:
            write_learning(self.run, self.glances)
            write_metrics(self.run, self.rows)

    def _warn(self, trainer: pl.Trainer, training: Any) -> None:
        """Says once what the recipe finds wrong with the metrics of the epoch, if anything."""
        sentence = training.recipe.warning(self.rows[-1])
        if sentence and not self.warned and trainer.is_global_zero:
            self.warned = True
            say(f"warning: epoch {self.rows[-1]['epoch']}: {sentence}.")

    def _save(self, trainer: pl.Trainer, epoch: int, step: int) -> None:
        """Writes the weights, if they are the best, and a checkpoint that goes on at this step of this epoch."""
        finite = all(weights.isfinite().all() for weights in trainer.lightning_module.parameters())
        if not trainer.strategy.reduce_boolean_decision(finite):
            raise Failure(f"a weight became infinite or nan by {_place(trainer)}: {self.saved}.")
        if step == 0 and best_row(self.rows, self.metric) is self.rows[-1]:
            self._save_weights(trainer)
        self.batches.position = (epoch, step)
        trainer.save_checkpoint(self.run / "last.ckpt")
        self.saved = self._where(trainer.global_step)

    def _save_weights(self, trainer: pl.Trainer) -> None:
        """Writes model.safetensors: all weights and buffers of the recipe's model."""
        from safetensors.torch import save

        state = trainer.strategy.lightning_module_state_dict()
        if trainer.is_global_zero:
            tensors = {name.removeprefix("model."): value.detach().cpu().clone() for name, value in state.items()}
            write(self.run / "model.safetensors", save(tensors, {"format": "pt"}))

    def _where(self, step: int) -> str:
        return f"the last good checkpoint is {self.run / 'last.ckpt'} (step {step})"

    def _interrupt(self, trainer: pl.Trainer) -> None:
        place = f"stopped at {_place(trainer)}, as asked"
        raise Interrupted(f"{place}: the same command goes on from {self.run / 'last.ckpt'}.")


def _place(trainer: pl.Trainer, step: int | None = None) -> str:
    """In words, where training is."""
    epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
    return f"step {step or trainer.global_step} of {_steps(trainer)} ({epoch})"


def _steps(trainer: pl.Trainer) -> int:
    """How many steps there are in all."""
    return int(trainer.num_training_batches) * (trainer.max_epochs or 0)


class Teller(pl.Callback):
    """Tells a function how far training has come: the fraction done, and the latest numbers; ten times a second."""

    def __init__(self, tell: Tell, keeper: Keeper):
        self.tell, self.keeper, self.due = tell, keeper, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, training: Any, *_: Any) -> None:
        if time.monotonic() >= self.due:
            self._tell(trainer, training)
            self.due = time.monotonic() + 0.1

    def on_train_epoch_end(self, trainer: pl.Trainer, training: Any) -> None:
        self._tell(trainer, training)

    def _tell(self, trainer: pl.Trainer, training: Any) -> None:
        logs = {"epoch": trainer.current_epoch + 1.0, "train_loss": float(training.logs["loss"])}
        if self.keeper.rows:
            watched = self.keeper.metric.name
            logs[watched] = float(self.keeper.rows[-1][watched])
        self.tell(trainer.global_step / _steps(trainer), logs)


@contextmanager
def heeding(keeper: Keeper) -> Iterator[None]:
    """Has Ctrl-C and SIGTERM stop training in good order, for as long as the context lasts."""
    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        handle(each, keeper.stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            handle(each, handler)


def handle(each: signal.Signals, handler: Any) -> None:
    """Says what a signal does, which Python lets the main thread alone do."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(each, handler)
