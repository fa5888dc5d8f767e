"""The weights of a model in a file, as safetensors, with a digest of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard.app.training.config import files
from regard.app.training.errors import Failure, reason
from regard.app.training.files import read, write
from regard.app.training.metrics import read_metrics

Weights = Mapping[str, Tensor]


def write_weights(path: Path, weights: Weights) -> None:
    """Writes tensors by their names. Raises Failure if the file cannot be written."""
    from safetensors.torch import save

    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
    }
    write(path, save(tensors, {"sha256": digest(tensors)}))  # one entry: of several, the order is chance


def digest(weights: Weights) -> str:
    """A SHA-256 of the names, the types, the shapes and the values.

    >>> digest({"bias": torch.zeros(2)}) == digest({"bias": torch.zeros(2, 1)})
    False
    """
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_weights(run: Path) -> dict[str, Tensor]:
    """The tensors of a run, or of a file, by their names.

    Raises Failure if there are none, or if they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = files(run)[1]
    try:
        data = read(path)
        weights = load(data)
        expected = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {}).get("sha256")
        if expected not in (None, digest(weights)):
            raise ValueError("it is damaged, as its digest is another")
    except FileNotFoundError as error:
        raise Failure(_missing(run)) from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise Failure(f"{path} cannot be loaded: {reason(error)}.") from error
    return weights


def _missing(run: Path) -> str:
    """Why a run has no weights, and what to do."""
    path = files(run)[1]
    if path == run:
        return f"{run} is not there."
    if read_metrics(run):
        return f"{run} has lost {path.name}: the command that trained it makes it anew."
    return f"{run} has no {path.name} yet: its first epoch has not ended."


def filled(model: nn.Module, weights: Weights, path: Path) -> Any:
    """The model with the weights of a file, in evaluation mode. Raises Failure if they do not fit."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise Failure(f"{path} cannot be loaded: {reason(error)}.") from error
    return model.eval()
