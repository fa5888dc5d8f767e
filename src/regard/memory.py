"""What may be looked at: kept, checked, and put into another order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jaxtyping import Bool
from torch import Tensor
from torch.utils._pytree import tree_map

from regard.masks import cleared, full_rank, unread
from regard.positions.base import exported
from regard.protocol import State
from regard.scores import check_query, prepare


@exported
@dataclass(eq=False)
class Memory:
    """What may be looked at: keys as the score prepared them, values, and a mask. A plain value.

    `values` is a tensor (*B, K, V) or anything with `.read(z)`; the mask is bool, (*B, Q, K) with Q possibly one.
    """

    keys: Tensor
    values: Any
    mask: Bool[Tensor, "*B Q K"] | None = None


def memory_of(score: Any, keys: Tensor, values: Any, mask: Tensor | None) -> Memory:
    """The memory of keys and values for a score."""
    if not isinstance(keys, Tensor) or not (isinstance(values, Tensor) or hasattr(values, "read")):
        name, given = ("values", values) if isinstance(keys, Tensor) else ("keys", keys)
        reader = " or an object with read(z)" if name == "values" else ""
        raise TypeError(f"{name} expected a tensor{reader}, but got {type(given).__name__}.")
    shape = keys.shape
    if len(shape) < 2:
        raise ValueError(f"keys expected the shape (*B, K, Dk), but got {tuple(shape)}.")
    if shape[-2] == 0:
        raise ValueError(f"keys expected at least one place to look at, but got shape {tuple(shape)}.")
    if isinstance(values, Tensor) and values.shape[:-1] != shape[:-1]:
        raise ValueError(
            f"values expected the shape of the keys but for the last dimension, (*B, K, V) for keys "
            f"{tuple(shape)}, but got {tuple(values.shape)}."
        )
    if mask is None:
        return Memory(prepare(score, keys), values)
    mask = full_rank(mask, shape[:-2], shape[-2])
    hidden = unread(mask)
    values = cleared(values, hidden) if isinstance(values, Tensor) else values
    return Memory(prepare(score, cleared(keys, hidden)), values, mask)


def select(value: Any, rows: Tensor):
    """Reorders, repeats or drops rows of the first batch dimension of a Memory, a State, positions or a sensor.

    `rows` are indices, or a bool mask over the rows. Raises TypeError for values that are read lazily and have no
    `select(rows)` of their own, such as `Glimpses` has.

    >>> import torch
    >>> from regard import OneHot
    >>> select(OneHot(weights=torch.tensor([[[1.0]], [[0.5]]])), torch.tensor([1, 1])).mean.flatten()
    tensor([0.5000, 0.5000])
    """
    return tree_map(partial(_select, rows), value)


def _select(rows: Tensor, leaf: Any) -> Any:
    if hasattr(leaf, "select") and not isinstance(leaf, Tensor):
        return leaf.select(rows)
    if hasattr(leaf, "read"):
        raise TypeError(
            f"select expected values that are a tensor or can select, but got the reader {type(leaf).__name__}."
        )
    return leaf[rows] if isinstance(leaf, Tensor) else leaf


def queries_of(query: Tensor, memory: Memory, size: int) -> Iterator[tuple[Tensor, Memory]]:
    """So many queries at a time, and the memory with their rows of the mask."""
    for first in range(0, query.shape[-2], size):
        rows, seen = slice(first, first + size), memory
        if memory.mask is not None and memory.mask.shape[-2] > 1:
            seen = replace(memory, mask=memory.mask[..., rows, :])
        yield query[..., rows, :], seen


def check_call(query: Tensor, memory: Memory, state: State | None) -> None:
    """Raises TypeError for what is no query, memory or state."""
    if not isinstance(query, Tensor):
        raise TypeError(f"query expected a tensor, but got {type(query).__name__}.")
    if not isinstance(memory, Memory):
        raise TypeError(f"memory expected what prepare(keys, values, mask) made, but got {type(memory).__name__}.")
    if not isinstance(state, State | None):
        raise TypeError(f"state expected the out.state of the step before, but got {type(state).__name__}.")


def check_shapes(score: Any, query: Tensor, memory: Memory) -> None:
    """Raises ValueError for a query that does not fit the memory or the score."""
    batch, shape = memory.keys.shape[:-2], query.shape
    if len(shape) < 2 or (shape[:-2] != batch and shape[len(shape) - 2 - len(batch) : -2] != batch):
        raise ValueError(
            f"query expected the shape (*B, Q, Dq) with the batch {tuple(batch)} of the keys (draws may stand in "
            f"front), but got {tuple(query.shape)}."
        )
    if memory.mask is not None and memory.mask.shape[-2] not in (1, query.shape[-2]):
        raise ValueError(f"mask expected {query.shape[-2]} queries or 1, but got {tuple(memory.mask.shape)}.")
    check_query(score, query, memory.keys)
