"""The losses of sparse weights, which are to entmax what the cross-entropy is to softmax."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.registry import is_transformed
from regard.over.mappings import entmax_weights
from regard.over.sparse import quotient
from regard.positions.algorithms.categorical import unblock
from regard.positions.base import wide

EXPM1 = tuple(1 / math.factorial(n + 1) for n in range(9))
"""The series of (exp(x) - 1) / x."""


def sparsemax_loss(
    scores: Float[Tensor, "*B K"], target: Int[Tensor, "*B"], ignore_index: int = -100
) -> Float[Tensor, "*B"]:
    """The loss whose gradient is sparsemax less the target (Martins and Astudillo 2016, equation 11): `entmax_loss`
    at 2.

    >>> sparsemax_loss(torch.tensor([[1.0, 0.5, -1.0], [3.0, 0.5, -1.0]]), torch.tensor([0, 0]))
    tensor([0.0625, 0.0000])
    """
    return entmax_loss(scores, target, 2.0, ignore_index)


def entmax_loss(
    scores: Float[Tensor, "*B K"],
    target: Int[Tensor, "*B"],
    alpha: float | Float[Tensor, "..."],
    ignore_index: int = -100,
) -> Float[Tensor, "*B"]:
    """The loss of each row that is zero where entmax gives the target all the weight, (p - y) . s + H(p), with the
    weights p, the target y as 0/1 and Tsallis's entropy H(p) = (1 - sum_k p_k^alpha) / (alpha (alpha - 1)) (Peters et
    al. 2019, equation 9; Blondel, Martins and Niculae 2020, definition 1): the cross-entropy at alpha 1.

    It is convex, with the gradient p - y in the scores. A row of -inf has no loss, nor has one whose target is
    `ignore_index`: the mean of the others is losses[target != ignore_index].mean(). `alpha` as in `entmax_weights`, in
    shape (*B, 1) if a tensor. Time O(K).

    Raises what `entmax_weights` raises, and ValueError for a target of another shape, or of a label that is none of the
    K (which is not looked for while compiling).

    >>> entmax_loss(torch.tensor([[1.0, 0.0, -2.0], [5.0, 0.0, -2.0]]), torch.tensor([0, 0]), 1.5)
    tensor([0.0617, 0.0000])
    """
    if target.shape != scores.shape[:-1]:
        raise ValueError(f"target expected the shape {tuple(scores.shape[:-1])}, but got {tuple(target.shape)}.")
    ignored = target == ignore_index
    target = target.masked_fill(ignored, 0)
    _check_labels(target, scores.shape[-1])
    known = wide(scores).masked_fill(ignored.unsqueeze(-1), 0)
    weights = entmax_weights(known, alpha)
    known = unblock(known)[0]
    known = known - known.detach().amax(-1, keepdim=True)
    wanted = known.gather(-1, target.unsqueeze(-1))
    gain = (weights * known.masked_fill(weights == 0, 0)).sum(-1) - wanted.squeeze(-1)
    return (gain + _entropy(weights, alpha)).masked_fill(ignored, 0).to(scores.dtype)


def _check_labels(target: Tensor, labels: int) -> None:
    """Raises ValueError for a label that is none."""
    if torch.compiler.is_compiling() or is_transformed() or target.numel() == 0:
        return
    for extreme in (target.min(), target.max()):
        if not 0 <= extreme < labels:
            raise ValueError(f"target expected labels from 0 to {labels - 1}, but got {extreme.item()}.")


def _entropy(weights: Tensor, alpha: float | Tensor) -> Tensor:
    """Tsallis's, as the mean of (1 - p^(alpha - 1)) / (alpha (alpha - 1)), which is -log p at alpha 1."""
    log = weights.masked_fill(weights == 0, 1).log()
    if isinstance(alpha, Tensor):
        alpha = alpha.to(weights)
        return -(weights * log * quotient(torch.expm1, EXPM1, (alpha - 1) * log) / alpha).sum(-1)
    surprise = log if alpha == 1 else ((alpha - 1) * log).expm1() / (alpha * (alpha - 1))
    return -(weights * surprise).sum(-1)
