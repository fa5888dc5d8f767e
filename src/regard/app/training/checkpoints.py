"""Checkpoints: the last and the one before it, each followed by a digest of it, and read without running code."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch

from regard.app.training.config import Fields, strangeness
from regard.app.training.errors import Failure
from regard.app.training.files import read, write
from regard.app.training.progress import say

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"

State = dict[str, Any]

PARTS = {
    "run": dict,
    "epoch": int,
    "place": int,
    "step": int,
    "model": dict,
    "optimizer": dict,
    "scheduler": dict,
    "rows": list,
    "glances": list,
    "sums": dict,
}
"""What a checkpoint holds: the fields of config.yaml, where training stands, and what it needs to go on from there."""


class Checkpoint(NamedTuple):
    """A file to go on from, and what it says."""

    path: Path
    state: State


def write_checkpoint(run: Path, state: State) -> None:
    """Writes last.ckpt whole or not at all, and keeps the one that it replaces as previous.ckpt.

    Raises Failure if that does not work; last.ckpt is then as it was.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())  # which torch.load passes over
    last, previous = run / LAST, run / PREVIOUS
    write(last, buffer.getbuffer(), before=previous)


def read_checkpoint(path: Path) -> State:
    """What a checkpoint says. Raises Failure if it is damaged, or holds what could run code."""
    try:
        data = memoryview(read(path))
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError("its digest is another")
        state = torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or {name: type(value) for name, value in state.items()} != PARTS:
            raise ValueError("it is of something else")
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        what = f"{path} is damaged, or holds what could run code"
        raise Failure(f"{what} ({type(error).__name__}): nothing was loaded from it.") from error
    return state


def newest_checkpoint(run: Path, fields: Fields) -> Checkpoint | None:
    """The last checkpoint of a run with these fields, or the one before if the last is damaged; None if there is none.

    Raises Failure if all are damaged, or the one to go on from is another run's.
    """
    damage = ""
    for path in (run / LAST, run / PREVIOUS):
        try:
            state = read_checkpoint(path) if path.is_symlink() or path.exists() else None
        except Failure as failure:
            damage = damage or str(failure)
            continue
        if state is not None:
            if different := strangeness(state["run"], fields):
                raise Failure(f"{path} is of another run ({different}): nothing was loaded from it.")
            if damage:
                say(f"warning: {damage} Training goes on from {path.name}, which was saved before it.")
            return Checkpoint(path, state)
    if damage:
        raise Failure(f"{damage} Without it, training begins anew.")
    return None
