"""What is written to a memory, where a distribution or an event says: the counterpart of reads."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions import Positions


def write(
    memory: Any,
    positions: Positions,
    erase: Float[Tensor, "*B Q V"],
    add: Float[Tensor, "*B Q V"],
    z: Int[Tensor, "*B Q"] | None = None,
) -> Any:
    """The memory after the queries have written to it, one after another: M_k (1 - w_k e) + w_k a (Graves et al. 2014,
    equations 3 and 4).

    Without `z` the weights w are the mean of the positions, and every cell changes: time and memory O(Q K V). With it,
    `out.z` of a hard read, w is one at the place z and zero elsewhere: one cell is erased and added to, each bit of the
    others stays, and nowhere, -1, writes nothing. A tensor (*B, K, V) is copied for that, O(Q K V); `Cells` are not,
    O(Q V). `erase` is between 0 and 1, where 1 forgets what was there.

    Raises ValueError for shapes that do not fit, and TypeError for `Cells` without `z`.

    >>> from regard import OneHot
    >>> memory, half = torch.ones(3, 1), OneHot(weights=torch.tensor([[0.5, 0.5, 0.0]]))
    >>> write(memory, half, torch.tensor([[1.0]]), torch.tensor([[4.0]])).T
    tensor([[2.5000, 2.5000, 1.0000]])
    >>> write(memory, half, torch.tensor([[1.0]]), torch.tensor([[4.0]]), z=torch.tensor([1])).T
    tensor([[1., 4., 1.]])
    """
    if isinstance(memory, Cells):
        if z is None:
            raise TypeError("write expected z, one place of each row, for Cells, which no mean is written to.")
        return memory.write(z, erase, add)
    if z is None:
        mean = positions.mean
        _check(memory, erase, add, positions=mean)
        run = find_road((write,), memory, mean, erase, add)
        if run is not None:
            return run(memory, mean, erase, add)
        for weights, forget, new in _in_turn(mean, erase, add):
            memory = written(memory, weights, forget, new)
        return memory
    _check(memory, erase, add, z=z)
    for place, forget, new in _in_turn(z.unsqueeze(-1), erase, add):
        column = place.clamp(min=0).expand_as(new)
        changed = _changed(memory.gather(-2, column), place < 0, forget, new)
        memory = memory.scatter(-2, column, changed)
    return memory


def written(
    memory: Float[Tensor, "*B K V"],
    weights: Float[Tensor, "*B 1 K"],
    erase: Float[Tensor, "*B 1 V"],
    add: Float[Tensor, "*B 1 V"],
) -> Float[Tensor, "*B K V"]:
    """The memory after one query has written to every cell."""
    return memory * (1 - weights.mT * erase) + weights.mT * add


class Cells:
    """A memory that is written in place, cell by cell: a read or a write takes O(N V) for N places of a row, forwards
    and backwards, however many cells there are.

    It begins as the tensor `memory` (*B, K, V), of which it keeps a copy. `read(z)` is that of values, so that it may
    stand where a tensor does; `write(memory, positions, erase, add, z)` writes to it and returns it. What was read
    before stays as it was, and gradients reach what was written, and `memory`: they are gathered in one tensor of its
    size, of which a step touches what it read or wrote. They cannot be differentiated again; a tensor in its place can.
    A pickle or a copy holds the numbers alone; gradients pass through `select` and `tensor()`.

    Raises ValueError for shapes that do not fit, and RuntimeError for gradients with create_graph=True.

    >>> cells = Cells(torch.zeros(2, 4, 1))
    >>> new = torch.ones(2, 1, 1, requires_grad=True)
    >>> seen = cells.write(torch.tensor([[3], [0]]), torch.ones(2, 1, 1), new).read(torch.tensor([[3], [3]]))
    >>> seen.flatten(), torch.autograd.grad(seen.sum(), new)[0].flatten()
    (tensor([1., 0.], grad_fn=<...>), tensor([1., 0.]))
    """

    def __init__(self, memory: Float[Tensor, "*B K V"]):
        if memory.dim() < 2 or memory.shape[-2] == 0:
            raise ValueError(
                f"Cells expected the shape (*B, K, V) with K of at least 1, but got {tuple(memory.shape)}."
            )
        self._store = _Store(memory.detach().clone())
        self._token = _Begin.apply(_token(memory), memory, self._store)

    @property
    def shape(self) -> torch.Size:
        """(*B, K, V)."""
        return self._store.cells.shape

    def read(self, z: Int[Tensor, "*SB N"]) -> Float[Tensor, "*SB N V"]:
        """What is in the cells z, which may have draws in front; never nowhere."""
        *batch, _, _ = self.shape
        if tuple(z.shape[z.dim() - 1 - len(batch) : -1]) != tuple(batch):
            raise ValueError(f"z expected the batch {tuple(batch)} of the cells, but got {tuple(z.shape)}.")
        draws = z.shape[: z.dim() - 1 - len(batch)]
        rows = z.reshape(math.prod(draws), *batch, z.shape[-1]).movedim(0, -2)  # (*B, S, N)
        seen = self._seen(_Read.apply(self._token, rows.flatten(-2), self._store))
        return seen.unflatten(-2, rows.shape[-2:]).movedim(-3, 0).reshape(*z.shape, seen.shape[-1])

    def write(self, z: Int[Tensor, "*B Q"], erase: Float[Tensor, "*B Q V"], add: Float[Tensor, "*B Q V"]) -> "Cells":
        """These cells, erased and added to where the queries say, one after another; nothing for nowhere, -1."""
        _check(self._store.cells, erase, add, z=z)
        for place, forget, new in _in_turn(z.unsqueeze(-1), erase, add):
            self._token = _Write.apply(self._token, forget, new, place, self._store)
        return self

    def tensor(self) -> Float[Tensor, "*B K V"]:
        """All cells as they are now, in time O(K V)."""
        return self._seen(_All.apply(self._token, self._store))

    def select(self, rows: Tensor) -> "Cells":
        """A copy of some rows of the batch, in time O(K V)."""
        return Cells(self.tensor()[rows])

    def __reduce__(self) -> tuple[type["Cells"], tuple[Tensor]]:
        return Cells, (self._store.cells,)

    def _seen(self, step: Any) -> Tensor:
        """What a step saw. Under no_grad no later step follows it, or it would cut off the earlier ones."""
        seen, token = step
        if torch.is_grad_enabled():
            self._token = token
        return seen


class _Store:
    """The numbers of some cells, and while gradients are computed, theirs."""

    def __init__(self, cells: Tensor):
        self.cells = cells
        self._gradient: tuple[int, Tensor] | None = None

    @property
    def gradient(self) -> Tensor:
        """That of the cells, in the pass of backpropagation that is under way: a new one begins with zeros."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "Cells expected to be differentiated once, but got create_graph=True: "
                "a tensor in their place can be differentiated again."
            )
        task = torch._C._current_graph_task_id()
        if self._gradient is None or self._gradient[0] != task:
            self._gradient = task, untouched(self.cells)
        return self._gradient[1]

    def release(self) -> Tensor:
        """The gradient, which is kept no longer."""
        gradient, self._gradient = self.gradient, None
        return gradient


def untouched(like: Tensor) -> Tensor:
    """Zeros of its shape; on the CPU numpy's, which the system makes when they are touched, and no others."""
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return torch.zeros_like(like)
    return torch.from_numpy(np.zeros(like.shape, np.float32 if like.dtype == torch.float32 else np.float64))


def _token(like: Tensor) -> Tensor:
    """A number by which each step depends on the one before it: so backpropagation takes them in turn."""
    return torch.zeros((), device=like.device, requires_grad=True)


class _Begin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, memory: Tensor, store: _Store) -> Tensor:
        ctx.store = store
        return token.clone()

    @staticmethod
    def backward(ctx: Any, later: Tensor) -> tuple[Tensor, Tensor, None]:
        return later, ctx.store.release(), None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, z: Tensor, store: _Store) -> tuple[Tensor, Tensor]:
        ctx.store, ctx.index = store, _index(z.unsqueeze(-1), store)
        return store.cells.gather(-2, ctx.index), token.clone()

    @staticmethod
    def backward(ctx: Any, seen: Tensor, later: Tensor) -> tuple[Tensor, None, None]:
        ctx.store.gradient.scatter_add_(-2, ctx.index, seen)
        return later, None, None


class _Write(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, erase: Tensor, add: Tensor, z: Tensor, store: _Store) -> Tensor:
        ctx.store, ctx.index, ctx.nowhere = store, _index(z.clamp(min=0), store), z < 0
        old = store.cells.gather(-2, ctx.index)
        ctx.save_for_backward(old, erase)
        store.cells.scatter_(-2, ctx.index, _changed(old, ctx.nowhere, erase, add))
        return token.clone()

    @staticmethod
    def backward(ctx: Any, later: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        old, erase = ctx.saved_tensors
        gradient = ctx.store.gradient
        here = gradient.gather(-2, ctx.index)
        gradient.scatter_(-2, ctx.index, torch.where(ctx.nowhere, here, here * (1 - erase)))
        written = here.masked_fill(ctx.nowhere, 0)
        return later, -written * old, written, None, None


class _All(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, store: _Store) -> tuple[Tensor, Tensor]:
        ctx.store = store
        return store.cells.clone(), token.clone()

    @staticmethod
    def backward(ctx: Any, cells: Tensor, later: Tensor) -> tuple[Tensor, None]:
        ctx.store.gradient.add_(cells)
        return later, None


def _index(z: Tensor, store: _Store) -> Int[Tensor, "*B N V"]:
    """The places (*B, N, 1) of all the numbers of the cells."""
    return z.expand(*z.shape[:-1], store.cells.shape[-1])


def _changed(old: Tensor, nowhere: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """A cell that is written to, unless that is nowhere."""
    return torch.where(nowhere, old, (old * (1 - erase) + add).to(old.dtype))


def _check(memory: Tensor, erase: Tensor, add: Tensor, **where: Tensor) -> None:
    """Raises ValueError unless what is written, and where, fits the memory."""
    *batch, places, width = memory.shape
    rows = *batch, erase.shape[-2] if erase.dim() > 1 else 1
    sizes = {"erase": (*rows, width), "add": (*rows, width), "z": rows, "positions": (*rows, places)}
    for name, given in {"erase": erase, "add": add, **where}.items():
        if given.shape != sizes[name]:
            memory_of = f"for a memory of shape {tuple(memory.shape)}"
            raise ValueError(f"{name} expected the shape {sizes[name]} {memory_of}, but got {tuple(given.shape)}.")


def _in_turn(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The parts (*B, Q, ...) of each query, (*B, 1, ...): where it writes, what it erases and what it adds."""
    return zip(*(part.split(1, -2) for part in parts), strict=True)
