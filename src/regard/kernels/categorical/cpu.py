"""Draws from a softmax and their log-probabilities on the CPU: a row of scores is read twice, and no weights are kept.

In float32, of which narrower types are made.
"""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable, discrete
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import categorical

SMALLEST = 1 << 8
"""Scores below which the plain road is as fast."""


def refuses(function: object, scores: Tensor, given: Tensor) -> str | None:
    """Too little to do, or float64."""
    if scores.dtype == torch.float64:
        return "it computes in float32, and this is float64"
    return None if scores.numel() >= SMALLEST else f"below {SMALLEST} scores the plain road is as fast"


def run_sample(function: object, scores: Tensor, noise: Tensor) -> Tensor:
    """The places (*B, S) of uniform noise (*B, S), float64."""
    return _drawn(_rows(scores), noise.reshape(-1, noise.shape[-1])).view(noise.shape)


def run_log_prob(function: object, scores: Tensor, z: Tensor) -> Tensor:
    """The log-probabilities (*B, S) of places z (*B, S)."""
    return _log_probs(_rows(scores), z.reshape(-1, z.shape[-1])).view(z.shape).to(scores.dtype)


def _rows(scores: Tensor) -> Tensor:
    return scores.reshape(-1, scores.shape[-1]).float().contiguous()


def _draw(scores: Tensor, noise: Tensor) -> Tensor:
    from regard.kernels.categorical import cpu_loops

    found = _places(scores, noise)
    arrays = [each.contiguous().numpy() for each in (scores, noise, found)]
    on_cpu.run(cpu_loops.draw, [(*block, *arrays) for block in on_cpu.blocks(len(found))])
    return found


def _places(scores: Tensor, noise: Tensor) -> Tensor:
    return torch.empty(noise.shape, dtype=torch.long, device=noise.device)


def _forward(scores: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    from regard.kernels.categorical import cpu_loops

    if z.numel() and z.max() >= scores.shape[1]:
        raise IndexError(f"value expected places below {scores.shape[1]}, but got {int(z.max())}.")
    found = _shapes(scores, z)
    arrays = [each.contiguous().numpy() for each in (scores, z, *found)]
    on_cpu.run(cpu_loops.log_probs, [(*block, *arrays) for block in on_cpu.blocks(len(scores))])
    return found


def _shapes(scores: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return scores.new_empty(z.shape), scores.new_empty(len(scores), dtype=torch.float64)


def _backward(grad: Tensor, scores: Tensor, z: Tensor, log_prob: Tensor, log_sums: Tensor) -> tuple[Tensor]:
    from regard.kernels.categorical import cpu_loops

    (of_scores,) = _shape_of_scores(grad, scores)
    arrays = [each.contiguous().numpy() for each in (grad, scores, z, log_sums, of_scores)]
    on_cpu.run(cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(len(scores))])
    return (of_scores,)


def _shape_of_scores(grad: Tensor, scores: Tensor, *others: Tensor) -> tuple[Tensor]:
    return (torch.empty_like(scores),)


_drawn = discrete("drawn_places", _draw, _places)
_log_probs = differentiable(
    "log_prob_of_places", _forward, _backward, (_shapes, _shape_of_scores), categorical.plain_log_prob
)
register_road((categorical.sample,), "cpu", Road(run_sample, refuses, transforms=True))
register_road((categorical.log_prob,), "cpu", Road(run_log_prob, refuses))
