"""Trains the tiny recipe as a program of its own, and looks at what a run has left behind.

python tiny_run.py DEVICES RUN...: each RUN is a folder, or FOLDER:STEP:SIGNAL to have the first process send the signal
to all processes of its group during that step. With NODES machines in the environment, each of which torchrun starts,
the process of rank SENDER does.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_recipe
import torch

from regard.app.training.checkpoints import read_checkpoint
from regard.app.training.errors import Failure
from regard.app.training.fabric import Fit
from regard.app.training.loop import train

PATH = os.pathsep.join([str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}

QUIET = Fit(accelerator="cpu", progress="none")


def start(*arguments: object, **environment: str) -> subprocess.Popen:
    """Starts this file as a program, in a process group of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT | environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def whole_run(folders: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted, in a folder of its own."""
    run = folders.mktemp("runs") / "whole"
    train(tiny_recipe, tiny_recipe.Config(), run, QUIET)
    return run


def copied(run: Path, target: Path) -> Path:
    """A copy of a run."""
    return Path(shutil.copytree(run, target))


def contents(run: Path) -> dict[str, Any]:
    """Everything that a run has left, to the last bit: weights, optimizer, scheduler, rows, sums, files."""
    checkpoint = read_checkpoint(run / "last.ckpt")
    files = {name: (run / name).read_bytes() for name in ("config.yaml", "metrics.csv", "model.safetensors")}
    return dict(_leaves("", checkpoint)) | files


def _leaves(path: str, value: Any):
    if isinstance(value, torch.Tensor):
        yield path, (value.dtype, value.numpy().tobytes())
    elif isinstance(value, dict | list | tuple):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(f"{path}/{key}", each)
    else:
        yield path, value


def send_at(patch: pytest.MonkeyPatch, step: int, send) -> None:
    """Has something happen in the middle of a step, once."""
    loss = tiny_recipe.loss

    def loss_and_send(model, batch):
        if int(model.steps) == step and model.training:
            patch.setattr(tiny_recipe, "loss", loss)
            send()
        return loss(model, batch)

    patch.setattr(tiny_recipe, "loss", loss_and_send)


def main(devices: str, *runs: str) -> int:
    status, nodes = 0, int(os.environ.get("NODES", 1))
    fit = Fit(devices=int(devices), nodes=nodes, accelerator="cpu", progress="none")
    for each in runs:
        run, *when = each.split(":")
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
        if when and rank == os.environ.get("SENDER", "0"):
            step, name = when
            send_at(pytest.MonkeyPatch(), int(step), lambda name=name: os.killpg(0, getattr(signal, name)))
        try:
            train(tiny_recipe, tiny_recipe.Config(), run, fit)
            status = 0
        except SystemExit:
            status = 0
        except Failure as failure:
            print(failure, file=sys.stderr)
            status = failure.status
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
