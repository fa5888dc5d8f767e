"""Training: the one Lightning module and the one data module that every recipe shares.

A run is a function of its configuration alone. The order of the examples and all randomness depend on (seed, epoch,
step, process), a step's batch is the same for any number of processes, which share it, and what `last.ckpt` holds is
enough to go on, after an epoch or in the middle of one, as if training had never stopped, to the last bit.

Importing this takes seconds, as it brings Lightning: only commands that train or evaluate do.
"""

import atexit
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regard.app.training.batches import Loader, Order, mix, sow
from regard.app.training.callbacks import Keeper, SafeCheckpoints, Teller, handle, heeding
from regard.app.training.errors import Failure, blaming_torchvision, reason
from regard.app.training.progress import Tell, bar, say
from regard.app.training.run import Row, best_row, claim, finished, load, locked, open_run, read_metrics
from regard.recipes.base import Recipe, open_recipe

with blaming_torchvision():
    import lightning.pytorch as pl
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import LambdaCallback
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.utilities import rank_zero_only
    from lightning.pytorch.utilities.seed import isolate_rng

__all__ = ["Batches", "Fit", "Training", "evaluate", "load", "train"]

EXPECTED = (  # warnings of Lightning's that are no news: batches are built in place, in a blink
    "The '.*_dataloader' does not have many workers",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
)


@atexit.register
def _leave_group() -> None:
    """Ends what binds the processes while Python still runs: left to C++, it may abort (pytorch#190489)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@dataclass
class Fit:
    """How to compute a run; what is computed is the configuration's matter alone.

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


class Batches(pl.LightningDataModule):
    """The splits of a recipe in batches (batch, seed), `batch` examples a step over all processes together, of about
    the same length where a split says what its `lengths` are.

    `position` is the epoch and the step in it where training goes on; it is saved with a checkpoint.
    """

    def __init__(self, splits: Any, batch: int, seed: int, workers: int = 0):
        super().__init__()
        self.splits, self.batch, self.seed, self.workers = splits, batch, seed, workers
        self.position = (0, 0)

    def order(self, split: Any, shuffled: bool = False) -> Order:
        """This process's share of a split."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return Order(len(split), self.batch, self.seed, shuffled, rank, world, getattr(split, "lengths", None))

    def train_dataloader(self) -> Loader:
        order = self.order(self.splits.train, shuffled=True)
        order.epoch, order.start = self.position
        return Loader(self.splits.train, order, self.workers)

    def val_dataloader(self) -> Loader:
        return Loader(self.splits.valid, self.order(self.splits.valid), self.workers)

    def test_dataloader(self) -> Loader:
        return Loader(self.splits.test, self.order(self.splits.test), self.workers)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Training(pl.LightningModule):
    """A recipe's model in Lightning's hands: its loss in training, its values per example averaged over a split else.

    `steps` is how many there will be in all; `logs` are the loss and the recipe's logs of the latest step, `means` the
    averages over the latest split.
    """

    def __init__(self, recipe: Recipe, config: Any, model: nn.Module, steps: int = 0):
        super().__init__()
        self.recipe, self.config, self.model, self.steps = recipe, config, model, steps
        self.logs: dict[str, Tensor] = {}
        self.means: dict[str, float] = {}
        self._totals: dict[str, Tensor] = {}

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = self.recipe.optimiser(self.model, self.config, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, item: tuple[dict[str, Tensor], int]) -> Tensor:
        batch, seed = item
        sow(mix(seed, "model"), self.device)
        loss, logs = self.recipe.loss(self.model, batch)
        self.logs = {name: value.detach().clone() for name, value in {"loss": loss, **logs}.items()}
        return loss

    def on_validation_epoch_start(self) -> None:
        self._totals = {}
        if self.trainer.world_size > 1:  # each process has updated its own since the step began with the first's
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, item: tuple[dict[str, Tensor], int]) -> None:
        batch, seed = item
        sow(mix(seed, "model"), self.device)
        for name, values in self.recipe.evaluate(self.model, batch).items():
            share = torch.tensor([values.cpu().double().sum(), len(values)], dtype=torch.float64)
            self._totals[name] = self._totals.get(name, 0) + share

    def on_validation_epoch_end(self) -> None:
        reduce = self.trainer.strategy.reduce
        sums = {name: reduce(each.to(self.device), reduce_op="sum").tolist() for name, each in self._totals.items()}
        self.means = self.recipe.conclude(sums)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end


def train(recipe: Recipe | ModuleType, config: Any, run: str | Path, fit: Fit | None = None) -> Row:
    """Trains a recipe into the folder `run`, or goes on with what is there; returns the best epoch's row of metrics.

    Raises Failure if the run is of another configuration or in use, the loss is not finite, a file cannot be written,
    or the machine has not what `fit` asks for; Interrupted if Ctrl-C or SIGTERM stopped it, with everything saved.
    """
    recipe, run, fit = open_recipe(recipe), Path(run), fit or Fit()
    with ExitStack() as stack:
        if rank_zero_only.rank == 0:
            stack.enter_context(locked(run))
            claim(run, recipe, config)
        rows = read_metrics(run)
        if not finished(rows, config, recipe.METRIC):
            rows = _train(recipe, config, run, fit)
        elif fit.progress == "bar":
            say(f"{run} is already finished.")
    best = best_row(rows, recipe.METRIC)
    if best is None:
        raise Failure(f"{run} has no best epoch: {recipe.METRIC.name} was never a number.")
    return best


def evaluate(
    run: str | Path, split: str = "test", fit: Fit | None = None, recipe: Recipe | ModuleType | None = None
) -> dict[str, int | float]:
    """The best model's averages over a split, train, valid or test: {"test_error": 0.05}.

    The recipe is regard's own that config.yaml names, unless a module is given. Raises Failure if there is no such
    run, or nothing in it to load.
    """
    fit = fit or Fit()
    with computing(fit):
        recipe, config, splits, model = open_run(Path(run), open_recipe(recipe) if recipe else None)
        training = Training(recipe, config, model)
        batches = Batches(splits._replace(test=getattr(splits, split)), config.batch, config.seed, fit.workers)
        term = signal.getsignal(signal.SIGTERM)  # which Lightning would replace by what lets the evaluation go on
        callback = LambdaCallback(on_test_start=lambda *_: handle(signal.SIGTERM, term))
        try:
            _trainer(fit, callbacks=[callback]).test(training, datamodule=batches, verbose=False)
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
    return {f"{split}_{name}": value for name, value in training.means.items()}


def _train(recipe: Recipe, config: Any, run: Path, fit: Fit) -> list[Row]:
    """The rows of metrics.csv, with training done."""
    with ExitStack() as stack:
        stack.enter_context(computing(fit))
        splits = recipe.data(config)
        batches = Batches(splits, config.batch, config.seed, fit.workers)
        sow(mix(config.seed, "model"), torch.device("cpu"))
        steps = config.epochs * len(batches.order(splits.train, shuffled=True))
        training = Training(recipe, config, recipe.Model(config, splits), steps)
        keeper, last = Keeper(run, recipe.METRIC, batches), run / "last.ckpt"
        callbacks = [keeper, *_tellers(fit, keeper, stack, f"{recipe.name} {run.name}", splits.describe)]
        trainer = _trainer(fit, max_epochs=config.epochs, callbacks=callbacks, logger=_loggers(run))
        stack.enter_context(heeding(keeper))
        stack.enter_context(speaking_once(trainer))
        trainer.fit(training, datamodule=batches, ckpt_path=str(last) if last.exists() else None)
    return keeper.rows


def _tellers(fit: Fit, keeper: Keeper, stack: ExitStack, title: str, describe: str) -> list[Teller]:
    """The callback that tells how far training has come, if anyone wants to hear it."""
    if fit.progress == "none" or rank_zero_only.rank != 0:
        return []
    if fit.progress == "bar":
        say(describe)
        if (keeper.run / "last.ckpt").exists():
            say(f"going on from {keeper.run / 'last.ckpt'}")
        return [Teller(stack.enter_context(bar(title)), keeper)]
    return [Teller(fit.progress, keeper)]


def _loggers(run: Path) -> list[TensorBoardLogger]:
    """TensorBoard's log, in the folder of the run, where the extra `logging` is installed."""
    return [TensorBoardLogger(run, name=None, version="tensorboard")] if find_spec("tensorboard") else []


def _trainer(fit: Fit, **settings: Any) -> pl.Trainer:
    """Lightning's trainer, without what costs time at each step. Raises Failure if the machine lacks what is asked."""
    quick = {"logger": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1, "use_distributed_sampler": False}
    silent = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    machine = {name: getattr(fit, name) for name in ("accelerator", "devices", "precision", "strategy")}
    machine |= {"num_nodes": fit.nodes, "deterministic": fit.deterministic or None, "plugins": [SafeCheckpoints()]}
    try:
        return pl.Trainer(**{**quick, **silent, **machine, **settings})
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise Failure(f"training cannot be set up as asked: {reason(error)}.") from error


@contextmanager
def speaking_once(trainer: pl.Trainer) -> Iterator[None]:
    """When processes stop together, the first speaks for all, and ends those that it has started."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Failure) and rank_zero_only.rank != 0:
            raise SystemExit(0) from None
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)
        raise


@contextmanager
def computing(fit: Fit) -> Iterator[None]:
    """What holds while a run is computed, and is as it was afterwards: random numbers, threads, Lightning's silence."""
    with isolate_rng(), _threads(fit.threads), _quiet():
        yield


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
def _quiet() -> Iterator[None]:
    """Keeps Lightning's tips to itself, and the warnings that are no news to us."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in EXPECTED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
