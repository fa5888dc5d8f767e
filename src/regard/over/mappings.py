"""Mappings from scores to weights: softmax and its kin, each a distribution over one place, and sigmoid.

A place whose mask is False, or whose score is -inf, is never looked at; a row without any place looks nowhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.checks import check_part
from regard.masks import checked
from regard.over.sparse import MOST, entmax_weights, sparsemax_weights
from regard.positions import Independent, OneHot, Positions
from regard.positions.base import INFINITY
from regard.protocol import Step, at, carry

Scores = Float[Tensor, "*B Q K"]
Mask = Bool[Tensor, "..."] | None
Over = Callable[[Tensor, Tensor | None], Positions]


def masked(scores: Scores, mask: Mask) -> Scores:
    """The scores with -inf where the mask, which has been checked, is False."""
    return scores if mask is None else scores.masked_fill(~mask, -INFINITY)


def softmax(scores: Scores, mask: Mask = None) -> OneHot:
    """One place with probability exp(s_k) / sum_j exp(s_j) (Bahdanau et al. 2015, equation 6).

    >>> softmax(torch.zeros(1, 4), torch.tensor([[True, True, False, False]])).mean
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    return OneHot(scores=masked(scores, checked(mask, scores.shape)))


def sparsemax(scores: Scores, mask: Mask = None) -> OneHot:
    """One place, the probabilities being the point of the simplex nearest to the scores (Martins and Astudillo 2016,
    equation 2): many are exactly zero. Time O(K) by the kernel, O(K log K) without.

    >>> sparsemax(torch.tensor([[1.0, 0.5, -1.0]])).mean
    tensor([[0.7500, 0.2500, 0.0000]])
    """
    return OneHot(weights=sparsemax_weights(masked(scores, checked(mask, scores.shape))))


class entmax(nn.Module):
    """One place, the probabilities maximising p . s plus the Tsallis entropy of order alpha (Peters et al. 2019,
    section 3): alpha 1 is softmax, 2 is sparsemax, between them fewer places are zero. Time O(K) by the kernel.

    `alpha` is a number, which stays fixed, or an `nn.Parameter`, which is learned (Correia et al. 2019, section 3.2):
    one for all or, broadcasting to the scores (*B, H, Q, K), one for each head, (H, 1, 1). Where a learned alpha falls
    below one the weights are NaN: `torch.nn.utils.parametrize` keeps it above. Two are equal if their alpha is the same
    number or the same parameter.

    Raises ValueError if alpha is a number below 1 or above 4.

    >>> entmax(1.5)(torch.tensor([[1.0, 0.0, -2.0]])).mean
    tensor([[0.8307, 0.1693, 0.0000]])
    """

    def __init__(self, alpha: float | nn.Parameter):
        super().__init__()
        if not isinstance(alpha, Tensor) and not 1 <= alpha <= MOST:
            raise ValueError(f"entmax expected alpha from 1 to {MOST:g}, but got {alpha}.")
        self.alpha = alpha

    def forward(self, scores: Scores, mask: Mask = None) -> OneHot:
        return OneHot(weights=entmax_weights(masked(scores, checked(mask, scores.shape)), self.alpha))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> float | int:
        return id(self.alpha) if isinstance(self.alpha, Tensor) else self.alpha

    def extra_repr(self) -> str:
        return f"alpha={tuple(self.alpha.shape) if isinstance(self.alpha, Tensor) else self.alpha}"


def at_least_one(name: str, k: int) -> None:
    """Raises ValueError unless k is."""
    if k < 1:
        raise ValueError(f"{name} expected k of at least 1, but got {k}.")


@dataclass(frozen=True)
class top_k:
    """One place, a softmax over the k places with the best scores (Zhao et al. 2019, section 3). Time O(K).

    >>> top_k(2)(torch.tensor([[1.0, 1.0, 0.0]])).mean
    tensor([[0.5000, 0.5000, 0.0000]])
    """

    k: int

    def __post_init__(self) -> None:
        at_least_one("top_k", self.k)

    def __call__(self, scores: Scores, mask: Mask = None) -> OneHot:
        scores = masked(scores, checked(mask, scores.shape))
        best, places = scores.topk(min(self.k, scores.shape[-1]), dim=-1)
        return OneHot(scores=torch.full_like(scores, -INFINITY).scatter(-1, places, best))


def sigmoid(scores: Scores, mask: Mask = None) -> Independent:
    """Every place by itself, with probability 1 / (1 + exp(-s_k)) (Kim et al. 2017, section 4.2).

    >>> sigmoid(torch.zeros(1, 2)).mean
    tensor([[0.5000, 0.5000]])
    """
    return Independent(masked(scores, checked(mask, scores.shape)))


class dropout(nn.Module):
    """Another over with dropout on its weights in training: each is zero with probability p, else divided by 1 - p
    (Srivastava et al. 2014). The weights then sum to one only on average, so it serves the mean read.

    Raises ValueError unless 0 <= p < 1, and TypeError for what is no over, or is not a distribution over one place.

    >>> from regard import Attention
    >>> attention = Attention(over=dropout(softmax, 0.1))
    """

    def __init__(self, over: Over, p: float):
        super().__init__()
        check_part("over", over)
        if not 0 <= p < 1:
            raise ValueError(f"dropout expected a probability p of at least 0 and below 1, but got {p}.")
        self.over = over
        self.p = p

    def at(self, step: Step) -> Over:
        over = at(self.over, step)
        return partial(_dropped, over, self.p) if step.training else over

    def next(self, carried: Any, positions: Positions) -> Any:
        return carry(self.over, carried, positions)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _dropped(over: Over, p: float, scores: Scores, mask: Mask = None) -> OneHot:
    positions = over(scores, mask)
    if not isinstance(positions, OneHot):
        raise TypeError(f"dropout expected an over that gives OneHot, but got {type(positions).__name__}.")
    return OneHot(weights=nn.functional.dropout(positions.mean, p))
