"""The sparse weights on the CPU: sparsemax and entmax without sorting, in a few passes over a row and few over the
places that have weight.

Time O(K) a row, of which the forward pass reads the scores twice and writes the weights, as softmax does; memory beside
the arguments is that of the weights. In float32, of which other types are made.
"""

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.over.sparse import entmax_weights, plain_weights

SMALLEST = 1 << 8
"""Scores below which the plain road is as fast."""


def refuses(function: object, scores: Tensor, alpha: float | Tensor) -> str | None:
    """Too little to do, float64, or softmax, alpha one, which is PyTorch's."""
    if scores.dtype == torch.float64:
        return "it computes in float32, and this is float64"
    if not isinstance(alpha, Tensor) and not 1 < alpha <= 2:  # above 2 the edge of the support is too steep
        return "it takes an alpha above 1, up to 2"
    return None if scores.numel() >= SMALLEST else f"below {SMALLEST} scores the plain road is as fast"


def run(function: object, scores: Tensor, alpha: float | Tensor) -> Tensor:
    """The weights (*B, K)."""
    rows = scores.reshape(-1, scores.shape[-1]).float().contiguous()  # (N, K)
    if isinstance(alpha, Tensor):
        weights = _learned(rows, alpha.expand(*scores.shape[:-1], 1).reshape(-1).double())
    else:
        weights = _fixed(rows, torch.full((1,), alpha, dtype=torch.float64))
    return weights.view(scores.shape).to(scores.dtype)


def _forward(scores: Tensor, alpha: Tensor) -> Tensor:
    from regard.kernels.sparse import cpu_loops

    out = torch.empty_like(scores)
    arrays = [each.numpy() for each in (scores, scores.view(torch.int32), alpha, out)]
    on_cpu.run(cpu_loops.weights, [(*block, *arrays) for block in on_cpu.blocks(len(scores))])
    return out


def _shape(scores: Tensor, alpha: Tensor) -> Tensor:
    return torch.empty_like(scores)


def _backward(grad: Tensor, scores: Tensor, alpha: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the scores and of an alpha for each row."""
    of_scores, of_alpha = torch.empty_like(grad), torch.empty_like(alpha)
    _gradients(grad, weights, alpha, of_scores, of_alpha)
    return of_scores, of_alpha


def _backward_of_scores(grad: Tensor, scores: Tensor, alpha: Tensor, weights: Tensor) -> tuple[Tensor]:
    """That of the scores alone."""
    of_scores = torch.empty_like(grad)
    _gradients(grad, weights, alpha, of_scores, alpha[:0])
    return (of_scores,)


def _gradients(*tensors: Tensor) -> None:
    from regard.kernels.sparse import cpu_loops

    arrays = [each.numpy() for each in tensors]
    on_cpu.run(cpu_loops.gradients, [(*block, *arrays) for block in on_cpu.blocks(len(tensors[0]))])


def _shapes(grad: Tensor, scores: Tensor, alpha: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad), torch.empty_like(alpha)


def _shape_of_scores(grad: Tensor, scores: Tensor, alpha: Tensor, weights: Tensor) -> tuple[Tensor]:
    return (torch.empty_like(grad),)


def _plain(scores: Tensor, alpha: Tensor) -> Tensor:
    return plain_weights(scores, alpha.item())


def _plain_learned(scores: Tensor, alpha: Tensor) -> Tensor:
    return plain_weights(scores, alpha.unsqueeze(-1).float())


_fixed = differentiable("entmax_fixed", _forward, _backward_of_scores, (_shape, _shape_of_scores), _plain)
_learned = differentiable("entmax_learned", _forward, _backward, (_shape, _shapes), _plain_learned)
register_road((entmax_weights,), "cpu", Road(run, refuses))
