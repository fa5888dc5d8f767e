"""`write` by one query on the CPU: every cell in one pass over the memory, forwards and backwards. In float32."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.addressing.cpu import rows
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.writes import write, written

SMALLEST = 1 << 9
"""Numbers in all memories below which the plain road is taken, which compiles nothing."""


def refuses(function: object, memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> str | None:
    """More than one query, other types than float32, or too little to do."""
    if not weights.shape[-2] == erase.shape[-2] == add.shape[-2] == 1 or weights.shape[:-2] != memory.shape[:-2]:
        return "it takes one query for each memory"
    if not memory.dtype == weights.dtype == erase.dtype == add.dtype == torch.float32:
        return "it takes float32"
    return None if memory.numel() >= SMALLEST else f"below {SMALLEST} numbers the plain road is taken"


def run(function: object, memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """The memory (*B, K, V)."""
    return _written(*map(rows, (memory, weights, erase, add))).view(memory.shape)


def _plain(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    return written(memory, weights, erase, add)


def _forward(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    from regard.kernels.written import cpu_loops

    out = torch.empty_like(memory)
    arrays = [each.numpy() for each in (memory, weights, erase, add, out)]
    on_cpu.run(cpu_loops.written, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    return out


def _shape(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    return torch.empty_like(memory)


def _backward(
    grad: Tensor, memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from regard.kernels.written import cpu_loops

    found = _shapes(grad, memory, weights, erase, add, out)
    arrays = [each.numpy() for each in (grad, memory, weights, erase, add, *found)]
    on_cpu.run(cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(len(memory))])
    return found


def _shapes(
    grad: Tensor, memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(memory), torch.empty_like(weights), torch.empty_like(erase), torch.empty_like(add)


_written = differentiable("written", _forward, _backward, (_shape, _shapes), _plain)
register_road((write,), "cpu", Road(run, refuses))
