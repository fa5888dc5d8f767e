"""Sparse mappings from scores to weights: like softmax, but many weights are exactly zero."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.positions.onehot import unblock

STEPS = 16
"""Steps of Newton's method: rows of 16,000 places that were made to be slow took 12 to 1e-12."""


def sparsemax_weights(scores: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """The point of the simplex nearest to the scores (Martins and Astudillo 2016, equation 2): `entmax_weights` at 2.

    >>> sparsemax_weights(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    return entmax_weights(scores, 2.0)


def entmax_weights(scores: Float[Tensor, "*B K"], alpha: float) -> Float[Tensor, "*B K"]:
    """The weights p on the simplex that maximise p . s + (1 - sum_k p_k^alpha) / (alpha (alpha - 1)) (Peters, Niculae
    and Martins 2019, "Sparse sequence-to-sequence models", section 3): softmax at alpha 1, sparsemax at 2.

    They are p_k = [(alpha - 1) s_k - tau]_+^(1 / (alpha - 1)) with the tau at which they sum to one. It is found by
    sorting at alpha 1.5 and 2, in time O(K log K), otherwise by iteration, O(K) a step: 16 steps of Newton's method
    below 2, and above 2 a bisection to the last bit. First and second derivatives are exact.

    A score of -inf has weight zero, a row of nothing else has none. Computed in float32 at least. Raises ValueError if
    alpha is below 1 or infinite.

    >>> entmax_weights(torch.tensor([1.0, 0.0, -2.0]), 1.5)
    tensor([0.8307, 0.1693, 0.0000])
    """
    if not 1 <= alpha < math.inf:
        raise ValueError(f"entmax_weights expected a finite alpha of at least 1, but got {alpha}.")
    unblocked, blocked = unblock(scores)
    wide = unblocked.to(torch.promote_types(scores.dtype, torch.float32))
    return _weights(wide, alpha).to(scores.dtype).masked_fill(blocked, 0)


def _weights(scores: Tensor, alpha: float) -> Tensor:
    """The weights of rows with a finite score."""
    if alpha == 1:
        return scores.softmax(-1)
    below = scores - scores.detach().amax(-1, keepdim=True)
    below = below.clamp(min=-2 / (alpha - 1))  # half of which has weight zero
    if alpha == 2:
        return _sparsemax(below)
    return _entmax15(below / 2) if alpha == 1.5 else _entmax(below, alpha)


def _sparsemax(below: Tensor) -> Tensor:
    """[s - tau]_+, where tau is what the sum of the best places exceeds one by, shared among them (Martins and
    Astudillo 2016, algorithm 1)."""
    best, count = _sorted(below)
    taus = (best.cumsum(-1) - 1) / count
    support, size = _support(below, taus, best > taus)
    return (below - ((below * support).sum(-1, keepdim=True) - 1) / size).clamp(min=0)


def _entmax15(half: Tensor) -> Tensor:
    """[s / 2 - tau]_+^2, tau by the mean and the variance of the best places (Peters et al. 2019, algorithm 2)."""
    best, count = _sorted(half)
    mean, square = best.cumsum(-1) / count, best.square().cumsum(-1) / count
    taus = mean - (1 / count - square + mean.square()).clamp(min=0).sqrt()
    support, size = _support(half, taus, best >= taus)
    mean = (half * support).sum(-1, keepdim=True) / size
    variance = ((half - mean).square() * support).sum(-1, keepdim=True) / size
    return (half - mean + (1 / size - variance).sqrt()).clamp(min=0).square()


def _sorted(below: Tensor) -> tuple[Tensor, Tensor]:
    """The scores, best first and without a gradient, and the number of places up to each."""
    count = torch.arange(1, below.shape[-1] + 1, dtype=below.dtype, device=below.device)
    return below.detach().sort(-1, descending=True).values, count


def _support(below: Tensor, taus: Tensor, supported: Tensor) -> tuple[Tensor, Tensor]:
    """Which places have weight, and their number, given the tau of each number of best places and whether it holds."""
    last = (supported.sum(-1, keepdim=True) - 1).clamp(min=0)  # NaN supports none
    support = below > taus.gather(-1, last)
    return support, support.sum(-1, keepdim=True).to(below.dtype)


def _entmax(below: Tensor, alpha: float) -> Tensor:
    """The weights by Newton's method or by bisection on the logarithm of the largest one.

    Two more steps of Newton's method, differentiated as they stand, give the exact first and second derivatives. Above
    alpha 2 a third outweighs the steep edge of the support.
    """
    largest = (_bisect if alpha > 2 else _descend)(below.detach(), alpha)
    for _ in range(3 if alpha > 2 else 2):
        largest = _newton(below, largest, alpha)
    return _powers(below, largest, alpha)[0]


def _powers(below: Tensor, largest: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The weights p and p^(2 - alpha), zero outside the support, given the logarithm of the largest weight.

    p = m [1 + (alpha - 1) (s - max s) / m^(alpha - 1)]_+^(1 / (alpha - 1)), m being the largest weight: accurate for
    alpha near 1, whose limit is m exp(s - max s), as for large alpha.
    """
    scale = ((1 - alpha) * largest).clamp(max=math.log(torch.finfo(below.dtype).max) / 2).exp()
    scaled = (alpha - 1) * below * scale
    outside = scaled <= -1
    log_weights = largest + scaled.masked_fill(outside, 0).log1p() / (alpha - 1)
    return log_weights.exp().masked_fill(outside, 0), ((2 - alpha) * log_weights).exp().masked_fill(outside, 0)


def _newton(below: Tensor, largest: Tensor, alpha: float) -> Tensor:
    """One step of Newton's method for (sum_k p_k)^(alpha - 1) = 1 in the largest weight's power alpha - 1.

    Below alpha 2 the left side, a norm, rises and is convex: from above no step goes too far, and as it is nearly
    straight, few do.
    """
    total, slope = (power.sum(-1, keepdim=True) for power in _powers(below, largest, alpha))
    excess = total.pow(2 - alpha) * (total.log() * (alpha - 1)).expm1() / slope
    return largest + (-excess * ((1 - alpha) * largest).exp()).log1p() / (alpha - 1)


def _descend(below: Tensor, alpha: float) -> Tensor:
    """The logarithm of the largest weight, by Newton's method from 0."""
    largest = torch.zeros_like(below[..., :1])
    for _ in range(STEPS):
        largest = _newton(below, largest, alpha)
    return largest


def _bisect(below: Tensor, alpha: float) -> Tensor:
    """The logarithm of the largest weight, which lies between -log K and 0, by halving."""
    width = math.log(below.shape[-1])
    low = torch.full_like(below[..., :1], -width)
    for _ in range(5 - round(math.log2(torch.finfo(below.dtype).eps))):
        width = width / 2
        few = _powers(below, low + width, alpha)[0].sum(-1, keepdim=True) < 1
        low = torch.where(few, low + width, low)
    return low
