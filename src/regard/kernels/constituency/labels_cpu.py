"""The sums over the labels of spans on the CPU: half of what is as large as the scores is not looked at."""

from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import constituency


def refuses(part: Any, scores: Tensor) -> str | None:
    """Other types than float32 and float64, or nothing to sum."""
    if scores.dtype not in (torch.float32, torch.float64):
        return "it takes float32 or float64"
    return None if scores.numel() > 0 else "there is nothing to do"


def run(part: Any, scores: Tensor) -> Tensor:
    """The scores (*B, K, K) of spans with labels (*B, K, K, S)."""
    *batch, words, _, labels = scores.shape
    return _summed(scores.reshape(-1, words, words, labels).contiguous()).view(*batch, words, words)


def _sums(scores: Tensor) -> tuple[Tensor, Tensor]:
    from regard.kernels.constituency import labels_cpu_loops

    found = _sums_shape(scores)
    given = [each.numpy() for each in (scores, *found)]
    on_cpu.run(labels_cpu_loops.sums, [(*block, *given) for block in on_cpu.blocks(len(scores))])
    return found


def _sums_shape(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The sums (N, K, K), and the shares of the labels (N, K, K, S)."""
    return scores.new_empty(scores.shape[:-1]), torch.empty_like(scores)


def _slopes(grad: Tensor, scores: Tensor, sums: Tensor, shares: Tensor) -> tuple[Tensor]:
    return (grad.unsqueeze(-1) * shares,)


def _slopes_shape(grad: Tensor, scores: Tensor, *_: Tensor) -> tuple[Tensor]:
    return (torch.empty_like(scores),)


_summed = differentiable(
    "constituency_labels", _sums, _slopes, (_sums_shape, _slopes_shape), constituency.plain_of_spans
)

register_road((constituency.of_spans,), "cpu", Road(run, refuses))
