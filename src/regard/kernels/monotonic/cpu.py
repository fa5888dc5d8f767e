"""The expected alignment on the CPU, one query after another in one loop over the places: time and memory O(Q K)."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import recurrence
from regard.positions.algorithms.recurrence import expected_alignment

SMALLEST = 1 << 4
"""Pairs of query and place below which the plain road is as fast."""


def refuses(part: object, stop: Tensor, go: Tensor, start: Tensor) -> str | None:
    """Too little to do, or other types than float32."""
    if not stop.dtype == go.dtype == start.dtype == torch.float32:
        return "it takes float32"
    return None if stop.numel() >= SMALLEST else f"below {SMALLEST} pairs of query and place the plain road is as fast"


def run(part: object, stop: Tensor, go: Tensor, start: Tensor) -> Tensor:
    """The weights (*B, Q, K)."""
    *batch, queries, places = stop.shape
    start = start.expand(*batch, places).reshape(-1, places)
    stop, go = (each.expand_as(stop).reshape(-1, queries, places) for each in (stop, go))
    return _weights(*(each.contiguous() for each in (stop, go, start))).view(*batch, queries, places)


def _forward(stop: Tensor, go: Tensor, start: Tensor) -> Tensor:
    from regard.kernels.monotonic import cpu_loops

    out = _shape(stop, go, start)
    arrays = [each.numpy() for each in (stop, go, start, out)]
    on_cpu.run(cpu_loops.weights, [(*block, *arrays) for block in on_cpu.blocks(len(stop))])
    return out


def _shape(stop: Tensor, go: Tensor, start: Tensor) -> Tensor:
    return torch.empty_like(stop)


def _backward(grad: Tensor, stop: Tensor, go: Tensor, start: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from regard.kernels.monotonic import cpu_loops

    found = _shapes(grad, stop, go, start, out)
    arrays = [each.numpy() for each in (grad, stop, go, start, out, *found)]
    on_cpu.run(cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(len(stop))])
    return found


def _shapes(grad: Tensor, stop: Tensor, go: Tensor, start: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(stop), torch.empty_like(go), torch.empty_like(start)


_weights = differentiable("expected_alignment", _forward, _backward, (_shape, _shapes), recurrence.by_steps)
register_road((expected_alignment,), "cpu", Road(run, refuses))
