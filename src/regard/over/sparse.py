"""Sparse mappings from scores to weights: like softmax, but many weights are exactly zero."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.algorithms.categorical import unblock
from regard.positions.base import wide

MOST = 4.0
"""The largest alpha: above it the edge of the support is too steep for float64."""
STEPS = 16
"""Steps of Newton's method: rows of 16,000 places that were made to be slow took 12 to 1e-12."""
LOG1P = tuple((-1) ** n / (n + 1) for n in range(12))
"""The series of log(1 + x) / x."""


def sparsemax_weights(scores: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """The point of the simplex nearest to the scores (Martins and Astudillo 2016, equation 2): `entmax_weights` at 2.

    >>> sparsemax_weights(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    return entmax_weights(scores, 2.0, dim)


def entmax_weights(
    scores: Float[Tensor, "..."], alpha: float | Float[Tensor, "..."], dim: int = -1
) -> Float[Tensor, "..."]:
    """The weights p on the simplex that maximise p . s + (1 - sum_k p_k^alpha) / (alpha (alpha - 1)) (Peters, Niculae
    and Martins 2019, "Sparse sequence-to-sequence models", section 3): softmax at alpha 1, sparsemax at 2.

    They are p_k = [(alpha - 1) s_k - tau]_+^(1 / (alpha - 1)) with the tau at which they sum to one, along `dim`. Up to
    alpha 2 a kernel finds it in a few passes, O(K), on the CPU and on CUDA. Else it is found by sorting at alpha 1.5
    and 2, in time O(K log K), otherwise by iteration, O(K) a step: 16 steps of Newton's method below 2, and above 2 a
    bisection to the last bit, in float64.

    `alpha` may be a tensor that broadcasts to the scores, of size one along `dim`, such as one for each head,
    (H, 1, 1); it has a gradient (Correia, Niculae and Martins 2019, proposition 1). First and second derivatives are
    exact. Where a tensor is below one or NaN, so are the weights NaN; above 2 it wants float64, as the edge of the
    support becomes steep there.

    A score of -inf has weight zero, a row of nothing else has none. Computed in float32 at least. Raises ValueError if
    alpha is a number below 1 or above 4, or a tensor of another shape.

    >>> entmax_weights(torch.tensor([1.0, 0.0, -2.0]), 1.5)
    tensor([0.8307, 0.1693, 0.0000])
    """
    if isinstance(alpha, Tensor):
        alpha = _of_rows(alpha, scores, dim)
    elif not 1 <= alpha <= MOST:
        raise ValueError(f"entmax_weights expected an alpha from 1 to {MOST:g}, but got {alpha}.")
    scores = scores.movedim(dim, -1)
    weights = (find_road((entmax_weights,), scores, alpha) or plain_weights)(scores, alpha)
    return weights.movedim(-1, dim)


def _of_rows(alpha: Tensor, scores: Tensor, dim: int) -> Tensor:
    """An alpha for each row, (*B, 1), that `dim` being the last."""
    sizes = list(scores.shape)
    sizes[dim] = 1
    pairs = zip(reversed(alpha.shape), reversed(sizes), strict=False)
    if alpha.dim() > len(sizes) or any(size not in (1, wanted) for size, wanted in pairs):
        raise ValueError(
            f"entmax_weights expected an alpha that broadcasts to {tuple(sizes)}, but got shape {tuple(alpha.shape)}."
        )
    return alpha.expand(sizes).movedim(dim, -1)


def plain_weights(scores: Tensor, alpha: float | Tensor) -> Tensor:
    """The plain road of `entmax_weights`, along the last dimension, with a number or an alpha (*B, 1)."""
    unblocked, blocked = unblock(scores)
    steep = not isinstance(alpha, Tensor) and alpha > 2  # at the edge of the support
    exact = unblocked.double() if steep else wide(unblocked)
    weights = _learned(exact, alpha.to(exact)) if isinstance(alpha, Tensor) else _weights(exact, alpha)
    return weights.to(scores.dtype).masked_fill(blocked, 0)


def _weights(scores: Tensor, alpha: float) -> Tensor:
    """The weights of rows with a finite score."""
    if alpha == 1:
        return scores.softmax(-1)
    below = scores - scores.detach().amax(-1, keepdim=True)
    below = below.clamp(min=-2 / (alpha - 1))  # half of which has weight zero
    if alpha == 2:
        return _sparsemax(below)
    return _entmax15(below / 2) if alpha == 1.5 else _entmax(below, alpha, alpha)


def _learned(scores: Tensor, alpha: Tensor) -> Tensor:
    """The same for a tensor of alphas."""
    fixed = alpha.detach()
    below = scores - scores.detach().amax(-1, keepdim=True)
    below = below.clamp(min=(-2 / (fixed - 1)).clamp(min=-1000))  # that of exp(-1000) at alpha 1
    return _entmax(below.masked_fill(~(fixed >= 1), math.nan), alpha, fixed)


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


def _entmax(below: Tensor, alpha: float | Tensor, fixed: float | Tensor) -> Tensor:
    """The weights by Newton's method or by bisection on the logarithm of the largest one, `fixed` being an alpha
    without a gradient.

    Two more steps of Newton's method, differentiated as they stand, give the exact first and second derivatives. Above
    alpha 2 a third outweighs the steep edge of the support.
    """
    near_two = not isinstance(fixed, Tensor) and fixed <= 2
    largest = (_descend if near_two else _bisect)(below.detach(), fixed)
    for _ in range(2 if near_two else 3):
        largest = _polish(below, largest, alpha)
    return _powers(below, largest, alpha)[0]


def _powers(below: Tensor, largest: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
    """The weights p and p^(2 - alpha), zero outside the support, given the logarithm of the largest weight.

    p = m [1 + (alpha - 1) (s - max s) / m^(alpha - 1)]_+^(1 / (alpha - 1)), m being the largest weight: accurate for
    alpha near 1, whose limit is m exp(s - max s), as for large alpha.
    """
    scale = ((1 - alpha) * largest).clamp(max=math.log(torch.finfo(below.dtype).max) / 2).exp()
    scaled = (alpha - 1) * below * scale
    outside = scaled <= -1
    scaled = scaled.masked_fill(outside, 0)
    if isinstance(alpha, Tensor):
        log_weights = largest + below * scale * quotient(torch.log1p, LOG1P, scaled)
    else:
        log_weights = largest + scaled.log1p() / (alpha - 1)
    log_weights = log_weights.masked_fill(outside, 0)  # or a power of it is infinite, and its derivative is NaN
    return log_weights.exp().masked_fill(outside, 0), ((2 - alpha) * log_weights).exp().masked_fill(outside, 0)


def quotient(function: Callable[[Tensor], Tensor], series: tuple[float, ...], x: Tensor) -> Tensor:
    """function(x) / x, with derivatives that are exact near zero also, where it is its series."""
    near = x.abs() < 0.04
    small, large = x.masked_fill(~near, 0), x.masked_fill(near, 1)
    total = torch.zeros_like(x)
    for coefficient in reversed(series):
        total = total * small + coefficient
    return torch.where(near, total, function(large) / large)


def _polish(below: Tensor, largest: Tensor, alpha: float | Tensor) -> Tensor:
    """One step of Newton's method for log sum_k p_k = 0 in the logarithm of the largest weight."""
    total, slope = (power.sum(-1, keepdim=True) for power in _powers(below, largest, alpha))
    return largest - total * total.log() / (slope * ((alpha - 1) * largest).exp())


def _newton(below: Tensor, largest: Tensor, alpha: float | Tensor) -> Tensor:
    """One step of Newton's method for (sum_k p_k)^(alpha - 1) = 1 in the largest weight's power alpha - 1.

    Below alpha 2 the left side, a norm, rises and is convex: from above no step goes too far, and as it is nearly
    straight, few do.
    """
    total, slope = (power.sum(-1, keepdim=True) for power in _powers(below, largest, alpha))
    excess = total.pow(2 - alpha) * (total.log() * (alpha - 1)).expm1() / slope
    return largest + (-excess * ((1 - alpha) * largest).exp()).log1p() / (alpha - 1)


def _descend(below: Tensor, alpha: float | Tensor) -> Tensor:
    """The logarithm of the largest weight, by Newton's method from 0."""
    largest = torch.zeros_like(below[..., :1])
    for _ in range(STEPS):
        largest = _newton(below, largest, alpha)
    return largest


def _bisect(below: Tensor, alpha: float | Tensor) -> Tensor:
    """The logarithm of the largest weight, which lies between -log K and 0, by halving."""
    width = math.log(below.shape[-1])
    low = torch.full_like(below[..., :1], -width)
    for _ in range(5 - round(math.log2(torch.finfo(below.dtype).eps))):
        width = width / 2
        few = _powers(below, low + width, alpha)[0].sum(-1, keepdim=True) < 1
        low = torch.where(few, low + width, low)
    return low
