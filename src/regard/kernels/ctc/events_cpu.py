"""The best paths of connectionist temporal classification, and drawn ones, on the CPU: one row after another."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import discrete
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import ctc


def _best(scores: Tensor, states: Tensor, present: Tensor, k: int) -> Tensor:
    from regard.kernels.ctc import events_cpu_loops

    found = _best_shape(scores, states, present, k)
    arrays = [each.contiguous().numpy() for each in (scores, states, present, found)]
    on_cpu.run(events_cpu_loops.best, [(*block, *arrays) for block in on_cpu.blocks(len(found))])
    return found


def _best_shape(scores: Tensor, states: Tensor, present: Tensor, k: int) -> Tensor:
    return scores.new_empty((len(scores), k, scores.shape[1]), dtype=torch.long)


def _drawn(scores: Tensor, states: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    from regard.kernels.ctc import events_cpu_loops

    drawn = _drawn_shape(scores, states, present, noise)
    arrays = [each.contiguous().numpy() for each in (scores, states, present, noise, drawn)]
    on_cpu.run(events_cpu_loops.draw, [(*block, *arrays) for block in on_cpu.blocks(len(drawn))])
    return drawn


def _drawn_shape(scores: Tensor, states: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    return torch.empty_like(noise, dtype=torch.long, memory_format=torch.contiguous_format)


def refuses(part: object, *given: object) -> None:
    """Nothing."""


def run_best(part: object, scores: Tensor, states: Tensor, present: Tensor, k: int) -> Tensor:
    """The labels (N, k, T) of the k best paths of scores (N, T, S), states (N, M) and present (N, T)."""
    return _best_paths(scores, states, present, k)


def run_drawn(part: object, scores: Tensor, states: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    """Labels drawn by uniform noise (N, draws, T), float64."""
    return _drawn_paths(scores, states, present, noise)


_best_paths = discrete("best_paths", _best, _best_shape)
_drawn_paths = discrete("drawn_paths", _drawn, _drawn_shape)
for _device in ("cpu", "cuda"):
    register_road((ctc.k_best,), _device, Road(run_best, refuses, transforms=True))
    register_road((ctc.sample,), _device, Road(run_drawn, refuses, transforms=True))
