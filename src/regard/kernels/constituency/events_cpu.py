"""The binary trees that are best, or drawn, on the CPU: in float64, whatever the scores are."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import discrete
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import constituency


def _k_best(ranked: Tensor, present: Tensor, k: int) -> Tensor:
    from regard.kernels.constituency import events_cpu_loops

    out = _k_best_shape(ranked, present, k)
    given = ranked.double().numpy(), present.numpy(), k, out.numpy()
    on_cpu.run(events_cpu_loops.k_best, [(*block, *given) for block in on_cpu.blocks(len(ranked))])
    return out


def _k_best_shape(ranked: Tensor, present: Tensor, k: int) -> Tensor:
    return present.new_empty(len(ranked), k, *ranked.shape[1:3], dtype=torch.long)


def _sample(scores: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    from regard.kernels.constituency import events_cpu_loops

    out = _sample_shape(scores, present, noise)
    given = scores.double().numpy(), present.numpy(), noise.numpy(), out.numpy()
    on_cpu.run(events_cpu_loops.samples, [(*block, *given) for block in on_cpu.blocks(len(scores))])
    return out


def _sample_shape(scores: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    return present.new_empty(len(scores), noise.shape[1], *scores.shape[1:])


def refuses(part: object, *given: object) -> None:
    """Nothing."""


def run_k_best(part: object, ranked: Tensor, present: Tensor, k: int) -> Tensor:
    """The k best trees (N, k, K, K) of rows of ranked scores (N, K, K, R) and present (N, K)."""
    return _best_trees(ranked, present, k)


def run_sample(part: object, scores: Tensor, present: Tensor, noise: Tensor) -> Tensor:
    """The spans (N, S, K, K) of trees that are drawn by uniform noise (N, S, K)."""
    return _drawn_trees(scores, present, noise)


_best_trees = discrete("constituency_k_best", _k_best, _k_best_shape)
_drawn_trees = discrete("constituency_sample", _sample, _sample_shape)
for _device in ("cpu", "cuda"):
    register_road((constituency.k_best,), _device, Road(run_k_best, refuses, transforms=True, exports=True))
    register_road((constituency.sample,), _device, Road(run_sample, refuses, transforms=True, exports=True))
