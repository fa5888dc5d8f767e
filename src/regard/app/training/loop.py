"""Training: the one loop that every recipe shares, on Lightning Fabric.

A run is a function of its configuration alone. The order of the examples and all randomness depend on (seed, epoch,
step, process), a step's batch is the same for any number of processes, which share it, and what `last.ckpt` holds is
enough to go on, after an epoch or in the middle of one, as if training had never stopped, to the last bit.

Importing this takes seconds, as it brings Lightning: only commands that train do.
"""

import time
from contextlib import ExitStack
from functools import partial
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from regard.app.report.glances import Glance, glances, write_learning
from regard.app.training.batches import Batch, loaded, mix, seed_all, training_batches
from regard.app.training.beginning import Beginning, begin, opened_at
from regard.app.training.checkpoints import LAST, State, read_checkpoint, write_checkpoint
from regard.app.training.config import schedules
from regard.app.training.errors import Failure, Interrupted, reason
from regard.app.training.evaluation import averages
from regard.app.training.fabric import Fabric, Fit, Step, first_says, launched
from regard.app.training.metrics import Row, best_row, finished, write_metrics
from regard.app.training.monitor import Log, Losses, Stop, logging
from regard.app.training.progress import Tell, say, telling
from regard.app.training.run import OpenedRun, locked
from regard.app.training.weights import write_weights
from regard.recipes.base import Recipe, open_recipe

PATIENCE = {"cpu": 1}
"""Steps from one look at the losses to the next: an accelerator would have to be waited for."""

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def train(
    recipe: Recipe | ModuleType,
    config: Any,
    run: str | Path,
    fit: Fit | None = None,
    start: str | Path | None = None,
) -> Row:
    """Trains a recipe into the folder `run`, or goes on with what is there; returns the best epoch's row of metrics.

    `start` is a run, or a file of weights, that the model has at first; config.yaml names it under `from`. If the
    configuration has more `epochs` than a run had, it first ends as it was to end; then the recipe's schedule begins
    again from the weights of the last epoch, over the epochs that were added.

    Raises Failure if the run is of another configuration or in use, the loss is not finite, a file cannot be written,
    or the machine has not what `fit` asks for; Interrupted if Ctrl-C or SIGTERM stopped it, with everything saved.
    """
    recipe, run, fit = open_recipe(recipe), Path(run), fit or Fit()
    with launched(fit) as fabric, ExitStack() as stack:

        def claimed() -> Beginning:
            stack.enter_context(locked(run))
            return begin(recipe, config, run, start)

        heard = fit.progress == "bar" and fabric.is_global_zero
        beginning = first_says(fabric, claimed)
        rows = beginning.finished
        if rows is None:
            rows = Trainer(fabric, fit, run, opened_at(beginning, recipe, config, run, start), beginning).train()
        elif heard:
            say(f"{run} is already finished.")
        best = best_row(rows, recipe.METRIC)
        if best is None:
            raise Failure(f"{run} has no best epoch: {recipe.METRIC.name} was never a number.")
        if heard:
            chosen = f"epoch {best['epoch']}, the best ({recipe.METRIC.name} {best[recipe.METRIC.name]:.4g})"
            say(f"evaluate and predict use the weights of {chosen}.")
    return best


class Trainer:
    """A run while it is trained. It stands at a step of an epoch, `place` and `epoch`, both counted from 0.

    The loss and the logs beside it are averaged over the processes and looked at after every step, or on an accelerator
    after every tenth. The sums of an epoch, and the rows and glances so far, go with the checkpoint.
    """

    def __init__(self, fabric: Fabric, fit: Fit, run: Path, opened: OpenedRun, beginning: Beginning):
        self.fabric, self.fit, self.run, self.opened = fabric, fit, run, opened
        self.recipe, self.config, self.splits, self.model = opened
        self.fields, self.ends = beginning.fields, schedules(beginning.fields)
        self.step = fabric.setup_module(Step(self.recipe, self.model))
        self.epoch, self.place = 0, 0
        self.steps = len(self._batches())
        self.rows: list[Row] = []
        self.glances: list[Glance] = []
        self.losses, self.stop = Losses(PATIENCE.get(fabric.device.type, 10)), Stop()
        self.tell: Tell = lambda fraction, logs: None
        self.due, self.warned = 0.0, False
        self.log: Log = lambda row, step: None
        if beginning.checkpoint:
            self._restore(beginning.checkpoint)

    def train(self) -> list[Row]:
        """Trains to the end; the rows of metrics.csv."""
        heard = self.fabric.is_global_zero
        if heard and self.fit.progress == "bar":
            say(self.splits.describe)
            if self.done:
                say(f"going on from {self.run / LAST}")
        told = telling(self.fit.progress if heard else "none", f"{self.recipe.name} {self.run.name}")
        with told as self.tell, logging(self.run if heard else None) as self.log, self.stop.on_signals():
            while not finished(self.rows, self.config, self.recipe.METRIC):
                self._train_epoch()
                self._end_epoch()
        return self.rows

    @property
    def done(self) -> int:
        """The steps that are done."""
        return self.epoch * self.steps + self.place

    def _batches(self) -> list[Batch]:
        """This process's share of the batches of the epoch."""
        split, fabric = self.splits.train, self.fabric
        lengths = getattr(split, "lengths", None)
        of = len(split), self.config.batch, self.config.seed, self.epoch, lengths
        in_order = getattr(split, "in_order", False)
        return training_batches(*of, fabric.global_rank, fabric.world_size, in_order)

    def _plan(self, epoch: int) -> None:
        """Makes the optimizer and the schedule of the learning rate under which an epoch is trained."""
        begin = max((end for end in self.ends if end <= epoch), default=0)
        end = min(end for end in self.ends if end > epoch)
        optimizer, self.scheduler = self.recipe.optimiser(self.model, self.config, (end - begin) * self.steps)
        self.optimizer = cast(Any, self.fabric.setup_optimizers(optimizer))

    def _train_epoch(self) -> None:
        if self.place == 0 and self.epoch in (0, *self.ends):
            self._plan(self.epoch)
        self.step.train()
        batches = loaded(self.splits.train, self._batches()[self.place :], fresh=True, workers=self.fit.workers)
        for batch, seed in batches:
            seed_all(mix(seed, "model"), self.fabric.device)
            loss, logs = self.step("loss", self.fabric.to_device(batch))
            self.fabric.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()
            self.recipe.after_step(self.model)
            self.place += 1
            if self.losses.add(loss, logs) or self.place == self.steps:
                self._look()
            self._tell()

    def _look(self) -> None:
        """Looks at the losses of the latest steps, and stops if one is not finite or a signal came.

        Raises Failure or Interrupted."""
        looked = self.losses.look(self.fabric, self.stop.asked)
        for step, (loss, _) in enumerate(looked, self.done - len(looked) + 1):
            if not isfinite(loss):
                raise Failure(f"the loss became {loss} at {self._where(step)}: {self.stop.saved}.")
        if any(asked for _, asked in looked) and self.place < self.steps:
            self._save()
            raise self._interrupted()

    def _end_epoch(self) -> None:
        """Validates, and writes everything. Raises Failure, or Interrupted if a signal came."""
        evaluate = partial(self.step, "evaluate")
        means = averages(self.opened, self.splits.valid, evaluate, self.fabric, self.fit.workers)
        self.epoch, self.place = self.epoch + 1, 0
        self.glances += glances(self.recipe, self.model, self.splits.valid, self.epoch, self.fabric.device)
        self.rows.append(self._row(means))
        self.losses.sums = {}
        self._warn()
        self._save()
        self._write()
        self._tell(at_once=True)
        asked = self.fabric.all_reduce(torch.tensor(float(self.stop.asked), device=self.fabric.device), reduce_op="sum")
        if asked and not finished(self.rows, self.config, self.recipe.METRIC):
            raise self._interrupted()

    def _row(self, means: dict[str, float]) -> Row:
        """What metrics.csv says about the epoch that ends: the means over its steps, and over the validation split."""
        row: Row = {"epoch": self.epoch, "step": self.done, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        row |= {f"train_{name}": total / self.steps for name, total in self.losses.sums.items()}
        return row | {f"valid_{name}": value for name, value in means.items()}

    def _warn(self) -> None:
        """Says once what the recipe finds wrong with the metrics of the epoch, if anything."""
        sentence = self.recipe.warning(self.rows[-1])
        if sentence and not self.warned and self.fabric.is_global_zero:
            self.warned = True
            say(f"warning: epoch {self.epoch}: {sentence}.")

    def _write(self) -> None:
        """Writes learning.json, the log, and metrics.csv, which says whether training is over, last."""
        if self.fabric.is_global_zero:
            write_learning(self.run, self.glances)
            self.log(self.rows[-1], self.done)
            write_metrics(self.run, self.rows)

    def _save(self) -> None:
        """Writes the weights, if they are the best, and a checkpoint to go on from. Raises Failure."""
        spoilt = torch.tensor(0.0, device=self.fabric.device)
        for weights in self.model.parameters():
            spoilt += ~weights.isfinite().all()
        if self.fabric.all_reduce(spoilt, reduce_op="sum"):
            raise Failure(f"a weight became infinite or nan by {self._where(self.done)}: {self.stop.saved}.")
        state = self._state()
        if self.fabric.is_global_zero:
            if self._is_best():
                self._write_weights(state)
            write_checkpoint(self.run, state)
        self.fabric.barrier()
        self._saved()

    def _is_best(self) -> bool:
        """Whether the weights are those of the best epoch so far."""
        return self.place == 0 and best_row(self.rows, self.recipe.METRIC) is self.rows[-1]

    def _write_weights(self, state: State) -> None:
        weights = {name.removeprefix("model."): value for name, value in state["model"].items()}
        write_weights(self.run / "model.safetensors", weights)

    def _saved(self) -> None:
        self.stop.saved = f"the last good checkpoint is {self.run / LAST} (step {self.done})"

    @property
    def _wrapped(self) -> nn.Module:
        """The model as the strategy has wrapped it."""
        return self.step._forward_module

    def _state(self) -> State:
        """Everything that training needs to go on; what is sharded among processes is put together by the first."""
        return {
            "run": self.fields,
            "epoch": self.epoch,
            "place": self.place,
            "step": self.done,
            "model": get_model_state_dict(self._wrapped, options=WHOLE),
            "optimizer": get_optimizer_state_dict(self._wrapped, self.optimizer.optimizer, options=WHOLE),
            "scheduler": self.scheduler.state_dict(),
            "rows": self.rows,
            "glances": self.glances,
            "sums": self.losses.sums,
        }

    def _restore(self, path: Path) -> None:
        """Goes on from a checkpoint. Raises Failure if it does not fit the model."""
        state = read_checkpoint(path)
        self.epoch, self.place = state["epoch"], state["place"]
        self.rows, self.glances, self.losses.sums = state["rows"], state["glances"], state["sums"]
        self._plan(self.epoch if self.place else self.epoch - 1)
        kept = WHOLE if state["optimizer"]["state"] else None  # torch cannot share out what an optimizer does not have
        try:
            set_optimizer_state_dict(self._wrapped, self.optimizer.optimizer, state["optimizer"], options=kept)
            set_model_state_dict(self._wrapped, state["model"], options=WHOLE)
            self.scheduler.load_state_dict(state["scheduler"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise Failure(f"{path} cannot be loaded: {reason(error)}.") from error
        self._saved()
        if self.fabric.is_global_zero and self.rows:  # the files may be an epoch behind the checkpoint
            if self._is_best():
                self._write_weights(state)
            write_learning(self.run, self.glances)
            write_metrics(self.run, self.rows)

    def _where(self, step: int) -> str:
        """In words, where training is after a step, counted from 1."""
        epoch = f"epoch {-(-step // self.steps)} of {self.ends[-1]}"
        return f"step {step} of {self.ends[-1] * self.steps} ({epoch})"

    def _interrupted(self) -> Interrupted:
        place = f"stopped at {self._where(self.done)}, as asked"
        return Interrupted(f"{place}: the same command goes on from {self.run / LAST}.")

    def _tell(self, at_once: bool = False) -> None:
        """Tells how far training has come: the fraction done, and the latest numbers; ten times a second."""
        if at_once or time.monotonic() >= self.due:
            watched = self.recipe.METRIC.name
            logs: dict[str, int | float] = {
                "epoch": -(-self.done // self.steps),
                "train_loss": float(self.losses.latest["loss"]),
            }
            if self.rows:
                logs[watched] = self.rows[-1][watched]
            self.tell(self.done / (self.ends[-1] * self.steps), logs)
            self.due = time.monotonic() + 0.1
