"""Connectionist temporal classification on the CPU: sums forward and backward in one loop over the frames, and their
derivatives, in time O(T L) and memory O(T L + T S) a row."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import ctc
from regard.positions.algorithms.ctc import log_partition, marginals


def refuses(part: object, scores: Tensor, states: Tensor, present: Tensor) -> str | None:
    """float32 or float64."""
    return None if scores.dtype in (torch.float32, torch.float64) else "it needs float32 or float64"


def run_log_partition(part: object, scores: Tensor, states: Tensor, present: Tensor) -> Tensor:
    """Log Z (*B)."""
    return _log_partition(*ctc.flat(scores, states, present)).view(scores.shape[:-2])


def run_marginals(part: object, scores: Tensor, states: Tensor, present: Tensor) -> Tensor:
    """The probability of each label of each frame (*B, T, S)."""
    return _marginals(*ctc.flat(scores, states, present)).view(scores.shape)


def _sums(scores: Tensor, states: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    from regard.kernels.ctc import cpu_loops

    log_z, found = _sums_shape(scores, states, present)
    _each_row(cpu_loops.expectations, scores, states, present, log_z, found)
    return log_z, found


def _sums_shape(scores: Tensor, states: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape[:1]), scores.new_empty(scores.shape)


def _slopes(
    grad: Tensor, scores: Tensor, states: Tensor, present: Tensor, log_z: Tensor, found: Tensor
) -> tuple[Tensor]:
    return (grad.view(-1, 1, 1) * found,)


def _slopes_shape(grad: Tensor, scores: Tensor, *_: Tensor) -> tuple[Tensor]:
    return (scores.new_empty(scores.shape),)


def _found(scores: Tensor, states: Tensor, present: Tensor) -> Tensor:
    return _sums(scores, states, present)[1]


def _found_shape(scores: Tensor, states: Tensor, present: Tensor) -> Tensor:
    return scores.new_empty(scores.shape)


def _moved(grad: Tensor, scores: Tensor, states: Tensor, present: Tensor, found: Tensor) -> tuple[Tensor]:
    from regard.kernels.ctc import cpu_loops

    (moved,) = _slopes_shape(grad, scores)
    _each_row(cpu_loops.tangents, scores, grad, states, present, moved)
    return (moved,)


def _each_row(kernel: object, *given: Tensor) -> None:
    arrays = [each.contiguous().numpy() for each in given]
    on_cpu.run(kernel, [(*block, *arrays) for block in on_cpu.blocks(len(arrays[0]))])


_log_partition = differentiable(
    "ctc_log_partition", _sums, _slopes, (_sums_shape, _slopes_shape), ctc.plain_log_partition
)
_marginals = differentiable("ctc_marginals", _found, _moved, (_found_shape, _slopes_shape), ctc.plain_marginals)
register_road((log_partition,), "cpu", Road(run_log_partition, refuses))
register_road((marginals,), "cpu", Road(run_marginals, refuses, exports=True))
