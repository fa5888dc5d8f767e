"""The dependency trees that are best, or drawn, on the CPU: in float64, whatever the scores are."""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import discrete
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import trees


def _k_best(scores: Tensor, present: Tensor, projective: bool, single_root: bool, k: int) -> Tensor:
    from regard.kernels.tree import events_cpu_loops

    out = _k_best_shape(scores, present, projective, single_root, k)
    given = scores.double().numpy(), present.numpy(), projective, single_root, out.numpy()
    on_cpu.run(events_cpu_loops.k_best, [(*block, *given) for block in on_cpu.blocks(len(scores))])
    return out


def _k_best_shape(scores: Tensor, present: Tensor, projective: bool, single_root: bool, k: int) -> Tensor:
    return present.new_empty(len(scores), k, scores.shape[-1], dtype=torch.long)


def _sample(scores: Tensor, present: Tensor, uniform: Tensor, projective: bool, single_root: bool) -> Tensor:
    from regard.kernels.tree import events_cpu_loops

    out = _sample_shape(scores, present, uniform, projective, single_root)
    given = scores.double().numpy(), present.numpy(), uniform.numpy(), projective, single_root, out.numpy()
    on_cpu.run(events_cpu_loops.samples, [(*block, *given) for block in on_cpu.blocks(len(scores))])
    return out


def _sample_shape(scores: Tensor, present: Tensor, uniform: Tensor, projective: bool, single_root: bool) -> Tensor:
    return present.new_empty(len(scores), uniform.shape[1], scores.shape[-1], dtype=torch.long)


def refuses(part: object, *given: object) -> None:
    """Nothing."""


def run_k_best(part: object, scores: Tensor, present: Tensor, projective: bool, single_root: bool, k: int) -> Tensor:
    """The k best trees (N, k, K) of rows of scores (N, K, K) and present (N, K)."""
    return _best_trees(scores, present, projective, single_root, k)


def run_sample(
    part: object, scores: Tensor, present: Tensor, uniform: Tensor, projective: bool, single_root: bool
) -> Tensor:
    """Trees (N, S, K) of the same rows, drawn by uniform numbers (N, S, 2 K)."""
    return _drawn_trees(scores, present, uniform, projective, single_root)


_best_trees = discrete("tree_k_best", _k_best, _k_best_shape)
_drawn_trees = discrete("tree_sample", _sample, _sample_shape)
for _device in ("cpu", "cuda"):
    register_road((trees.k_best,), _device, Road(run_k_best, refuses, transforms=True, exports=True))
    register_road((trees.sample,), _device, Road(run_sample, refuses, transforms=True, exports=True))
