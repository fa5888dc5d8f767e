"""The best segmentations into labelled runs, and drawn ones, on the CPU: one row after another, in float64."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import discrete
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import semi_markov


def _best(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, k: int) -> Tensor:
    from regard.kernels.semi_markov import events_cpu_loops

    found = _best_shape(nodes, transitions, durations, present, k)
    arrays = [each.numpy() for each in (*_doubled(nodes, transitions, durations), present.contiguous(), found)]
    on_cpu.run(events_cpu_loops.best, [(*block, *arrays) for block in on_cpu.blocks(len(nodes))])
    return found


def _best_shape(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, k: int) -> Tensor:
    return nodes.new_empty((len(nodes), k, nodes.shape[1]), dtype=torch.long)


def _drawn(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    from regard.kernels.semi_markov import events_cpu_loops

    drawn = _drawn_shape(nodes, transitions, durations, present, noise)
    given = *_doubled(nodes, transitions, durations), present.contiguous(), noise.contiguous(), drawn
    arrays = [each.numpy() for each in given]
    on_cpu.run(events_cpu_loops.draw, [(*block, *arrays) for block in on_cpu.blocks(len(nodes))])
    return drawn


def _drawn_shape(nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    return nodes.new_empty(noise.shape[:-1], dtype=torch.long)


def rows(nodes: Tensor, *shared: Tensor) -> tuple[Tensor, ...]:
    """What the loops take, the durations (N, L, W, S); scores that all rows share stand there once."""
    transitions, durations = (each[: 1 if each.stride(0) == 0 else None].contiguous() for each in shared)
    return nodes.contiguous(), transitions, durations if durations.dim() > 3 else durations.unsqueeze(1)


def _doubled(nodes: Tensor, *shared: Tensor) -> tuple[Tensor, ...]:
    return tuple(each.double() for each in rows(nodes, *shared))


def refuses(part: object, *given: object) -> None:
    """Nothing."""


def run_best(part: object, nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, k: int) -> Tensor:
    """The k best (N, k, T) of nodes (N, T, S), transitions (N, S, S), durations (N, ..., W, S) and present (N, T)."""
    return _best_segmentations(nodes, transitions, durations, present, k)


def run_drawn(
    part: object, nodes: Tensor, transitions: Tensor, durations: Tensor, present: Tensor, noise: Tensor
) -> Tensor:
    """Labels drawn by uniform noise (N, draws, T, 2), float64."""
    return _drawn_segmentations(nodes, transitions, durations, present, noise)


_best_segmentations = discrete("best_segmentations", _best, _best_shape)
_drawn_segmentations = discrete("drawn_segmentations", _drawn, _drawn_shape)
for _device in ("cpu", "cuda"):
    register_road((semi_markov.k_best,), _device, Road(run_best, refuses, transforms=True))
    register_road((semi_markov.sample,), _device, Road(run_drawn, refuses, transforms=True))
