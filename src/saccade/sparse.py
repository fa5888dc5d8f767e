"""Sparse mappings from scores to weights: like softmax, but many weights are exactly zero."""

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.positions.onehot import unblock


def sparsemax_weights(scores: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """The point of the simplex nearest to the scores (Martins and Astudillo 2016, equation 2): `entmax_weights` at 2.

    >>> sparsemax_weights(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    return entmax_weights(scores, 2.0)


def entmax_weights(scores: Float[Tensor, "*B K"], alpha: float) -> Float[Tensor, "*B K"]:
    """The weights p on the simplex that maximise p . s + (1 - sum_k p_k^alpha) / (alpha (alpha - 1)) (Peters et al.
    2019, equations 9 and 10): softmax at alpha 1, sparsemax at 2.

    They are p_k = [(alpha - 1) s_k - t]_+^(1 / (alpha - 1)) with the t at which they sum to one (their equation 12),
    found by bisection and polished by two steps of Newton's method: time O(K) times the bits of precision. The two
    steps are differentiated as they stand, which gives the exact first and second derivatives. A score of -inf has
    weight zero, a row of nothing else has none. Computed in float32 at least.

    >>> entmax_weights(torch.tensor([1.0, 0.0, -2.0]), 1.5)
    tensor([0.8307, 0.1693, 0.0000])
    """
    scores, blocked = unblock(scores)
    if alpha == 1:
        return scores.softmax(-1).masked_fill(blocked, 0)
    power = 1 / (alpha - 1)
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scaled = (alpha - 1) * (wide - wide.detach().amax(-1, keepdim=True))
    threshold = _bisect(scaled.detach(), power)
    for _ in range(2):
        excess = _power_above(scaled, threshold, power).sum(-1, keepdim=True) - 1
        threshold = threshold + excess / (power * _power_above(scaled, threshold, power - 1).sum(-1, keepdim=True))
    return _power_above(scaled, threshold, power).to(scores.dtype).masked_fill(blocked, 0)


def _power_above(scaled: Tensor, threshold: Tensor, power: float) -> Tensor:
    """[s - t]_+^power, zero below the threshold with all its derivatives, whatever the power."""
    above = scaled - threshold
    support = above > 0
    return torch.where(support, above, 1).pow(power).masked_fill(~support, 0)


def _bisect(scaled: Tensor, power: float) -> Tensor:
    """The threshold at which the weights sum to one, of scores whose largest is zero."""
    low, width = torch.full_like(scaled[..., :1], -1.0), 1.0  # at -1 the best place alone has weight one
    for _ in range(torch.finfo(scaled.dtype).bits * 7 // 8):
        width = width / 2
        total = _power_above(scaled, low + width, power).sum(-1, keepdim=True)
        low = torch.where(total >= 1, low + width, low)
    return low
