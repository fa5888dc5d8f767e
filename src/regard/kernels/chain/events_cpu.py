"""The best labellings of a linear chain, and drawn ones, on the CPU: one row after another."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import discrete
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import linear_chain


def _best(nodes: Tensor, transitions: Tensor, present: Tensor, k: int) -> Tensor:
    from regard.kernels.chain import events_cpu_loops

    found = _best_shape(nodes, transitions, present, k)
    arrays = [each.numpy() for each in (*_doubled(nodes, transitions, present), found)]
    on_cpu.run(events_cpu_loops.best, [(*block, *arrays) for block in on_cpu.blocks(len(nodes))])
    return found


def _best_shape(nodes: Tensor, transitions: Tensor, present: Tensor, k: int) -> Tensor:
    return nodes.new_empty((len(nodes), k, nodes.shape[1]), dtype=torch.long)


def _drawn(nodes: Tensor, transitions: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    from regard.kernels.chain import events_cpu_loops

    drawn = _drawn_shape(nodes, transitions, present, noise)
    arrays = [each.numpy() for each in (*_doubled(nodes, transitions, present), noise.contiguous(), drawn)]
    on_cpu.run(events_cpu_loops.draw, [(*block, *arrays) for block in on_cpu.blocks(len(nodes))])
    return drawn


def _drawn_shape(nodes: Tensor, transitions: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    return torch.empty_like(noise, dtype=torch.long, memory_format=torch.contiguous_format)


def rows(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the loops take, the transitions (N, L, S, S); such that all rows share stand there once."""
    transitions = linear_chain.between(nodes, transitions[:1] if transitions.stride(0) == 0 else transitions)
    return nodes.contiguous(), transitions.contiguous(), present.contiguous()


def _doubled(nodes: Tensor, transitions: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    nodes, transitions, present = rows(nodes, transitions, present)
    return nodes.double(), transitions.double(), present


def refuses(part: object, *given: object) -> None:
    """Nothing."""


def run_best(part: object, nodes: Tensor, transitions: Tensor, present: Tensor, k: int) -> Tensor:
    """The k best labellings (N, k, T) of nodes (N, T, S), transitions (N, ..., S, S) and present (N, T)."""
    return _best_labellings(nodes, transitions, present, k)


def run_drawn(part: object, nodes: Tensor, transitions: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    """Labellings drawn by uniform noise (N, draws, T), float64."""
    return _drawn_labellings(nodes, transitions, present, noise)


_best_labellings = discrete("best_labellings", _best, _best_shape)
_drawn_labellings = discrete("drawn_labellings", _drawn, _drawn_shape)
for _device in ("cpu", "cuda"):
    register_road((linear_chain.k_best,), _device, Road(run_best, refuses, transforms=True))
    register_road((linear_chain.sample,), _device, Road(run_drawn, refuses, transforms=True))
