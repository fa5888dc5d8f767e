"""A distribution over what? Every `over` maps (scores, mask) to positions: scores (*B, Q, K), mask of bool or None.

A place whose mask is False, or whose score is -inf, is never looked at; a row without any place looks nowhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.over.sparse import MOST, entmax_weights, sparsemax_weights
from regard.positions import Independent, OneHot, Positions, Subset, WithoutReplacement
from regard.positions.base import INFINITY
from regard.protocol import Step, at, carry

Scores = Float[Tensor, "*B Q K"]
Mask = Bool[Tensor, "..."] | None
Over = Callable[[Tensor, Tensor | None], Positions]


def masked(scores: Scores, mask: Mask) -> Scores:
    """The scores with -inf where the mask, (*B, Q, K) or what broadcasts to it, is False."""
    return scores if mask is None else scores.masked_fill(~mask, -INFINITY)


def softmax(scores: Scores, mask: Mask = None) -> OneHot:
    """One place with probability exp(s_k) / sum_j exp(s_j) (Bahdanau et al. 2015, equation 6).

    >>> softmax(torch.zeros(1, 4), torch.tensor([[True, True, False, False]])).mean
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    return OneHot(scores=masked(scores, mask))


def sparsemax(scores: Scores, mask: Mask = None) -> OneHot:
    """One place, the probabilities being the point of the simplex nearest to the scores (Martins and Astudillo 2016,
    equation 2): many are exactly zero. Time O(K) by the kernel, O(K log K) without.

    >>> sparsemax(torch.tensor([[1.0, 0.5, -1.0]])).mean
    tensor([[0.7500, 0.2500, 0.0000]])
    """
    return OneHot(weights=sparsemax_weights(masked(scores, mask)))


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
        return OneHot(weights=entmax_weights(masked(scores, mask), self.alpha))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> float | int:
        return id(self.alpha) if isinstance(self.alpha, Tensor) else self.alpha

    def extra_repr(self) -> str:
        return f"alpha={tuple(self.alpha.shape) if isinstance(self.alpha, Tensor) else self.alpha}"


def _at_least_one(name: str, k: int) -> None:
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
        _at_least_one("top_k", self.k)

    def __call__(self, scores: Scores, mask: Mask = None) -> OneHot:
        scores = masked(scores, mask)
        best, places = scores.topk(min(self.k, scores.shape[-1]), dim=-1)
        return OneHot(scores=torch.full_like(scores, -INFINITY).scatter(-1, places, best))


def sigmoid(scores: Scores, mask: Mask = None) -> Independent:
    """Every place by itself, with probability 1 / (1 + exp(-s_k)) (Kim et al. 2017, section 4.2).

    >>> sigmoid(torch.zeros(1, 2)).mean
    tensor([[0.5000, 0.5000]])
    """
    return Independent(masked(scores, mask))


@dataclass(frozen=True)
class subset:
    """Sets of k places with probability proportional to the exponential of the sum of their scores, the conditional
    Bernoulli distribution (Chen, Dempster and Liu 1994). Time O(K k).

    >>> subset(2)(torch.zeros(1, 4)).mean
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    k: int

    def __post_init__(self) -> None:
        _at_least_one("subset", self.k)

    def __call__(self, scores: Scores, mask: Mask = None) -> Subset:
        return Subset(masked(scores, mask), self.k)


@dataclass(frozen=True)
class without_replacement:
    """Ordered draws of k places, each from the softmax over those that remain (Plackett 1975; Luce 1959), made by
    the Gumbel top-k trick (Kool et al. 2019, section 3.1).

    >>> without_replacement(2)(torch.tensor([[1.0, 3.0, 2.0]])).mode
    tensor([[1, 2]])
    """

    k: int

    def __post_init__(self) -> None:
        _at_least_one("without_replacement", self.k)

    def __call__(self, scores: Scores, mask: Mask = None) -> WithoutReplacement:
        return WithoutReplacement(masked(scores, mask), self.k)


class Predicted(nn.Module):
    """A centre predicted from the query, S sigmoid(v . tanh(W q)) (Luong et al. 2015, equation 9).

    S is the number of places that may be looked at, (*B, Q) or a number; the centre, (*B, Q), counts places from zero.

    >>> Predicted(query_dim=3, hidden_dim=4)(torch.zeros(2, 3), places=10).tolist()
    [5.0, 5.0]
    """

    def __init__(self, query_dim: int, hidden_dim: int):
        super().__init__()
        self.query = nn.Linear(query_dim, hidden_dim, bias=False)
        self.position = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, query: Float[Tensor, "*B Q Dq"], places: Tensor | int) -> Float[Tensor, "*B Q"]:
        return places * self.position(self.query(query).tanh()).squeeze(-1).sigmoid()


class local(nn.Module):
    """One place, a softmax over a window of 2 radius + 1 places round a centre (Luong et al. 2015, section 3.2).

    Without `centre` the window moves on by one place a query (local-m): the centre of query t is place t, counted on
    from call to call by the state. With `centre`, a module of (query, places) such as `Predicted`, the weights are
    multiplied by exp(-(k - p)^2 / (2 sigma^2)) with sigma = radius / 2 (local-p, equation 10); what they then lack to
    one is the probability of nowhere. Time and memory O(Q w D) for windows of w places among many, else O(Q K D).

    Raises ValueError unless the radius is at least one.

    >>> from regard import Step
    >>> local(1).at(Step(torch.zeros(3, 2), torch.zeros(4, 2)))(torch.zeros(3, 4), None).mean
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.3333, 0.3333, 0.3333, 0.0000],
            [0.0000, 0.3333, 0.3333, 0.3333]])
    """

    def __init__(self, radius: int, centre: nn.Module | None = None):
        super().__init__()
        if radius < 1:
            raise ValueError(f"local expected a radius of at least 1, but got {radius}.")
        self.radius = radius
        self.centre = centre

    def at(self, step: Step) -> Over:
        if self.centre is None:
            first = 0 if step.carried is None else step.carried.unsqueeze(-1)
            centre = first + torch.arange(step.query.shape[-2], device=step.query.device)
            return partial(plain_window, centre, self.radius)
        places = step.keys.shape[-2] if step.mask is None else step.mask.sum(-1)
        return partial(gaussian_window, self.centre(step.query, places), self.radius)

    def next(self, carried: Tensor | None, positions: Positions) -> Tensor | None:
        if self.centre is not None:
            return None
        *batch, queries = positions.batch_shape
        return torch.full(batch, queries, device=positions.device) + (0 if carried is None else carried)

    def extra_repr(self) -> str:
        return f"radius={self.radius}"


def plain_window(centre: Tensor, radius: int, scores: Scores, mask: Mask = None) -> OneHot:
    """A softmax over the places within the radius of a centre (*B, Q), rounded to a place."""
    inside = _offset(scores, centre.round()).abs() <= radius
    return softmax(scores, inside if mask is None else inside & mask)


def gaussian_window(centre: Tensor, radius: int, scores: Scores, mask: Mask = None) -> OneHot:
    """The same, times a Gaussian round the centre as it is (Luong et al. 2015, equation 10)."""
    near = torch.exp(-2 * (_offset(scores, centre) / radius).square())
    return OneHot(weights=plain_window(centre, radius, scores, mask).mean * near)


def _offset(scores: Scores, centre: Tensor) -> Tensor:
    return torch.arange(scores.shape[-1], device=scores.device) - centre.unsqueeze(-1)  # (*B, Q, K)


class dropout(nn.Module):
    """Another over with dropout on its weights in training: each is zero with probability p, else divided by 1 - p
    (Srivastava et al. 2014). The weights then sum to one only on average, so it serves the mean read.

    Raises ValueError unless 0 <= p < 1, and TypeError if the other over is not a distribution over one place.

    >>> from regard import Attention
    >>> attention = Attention(over=dropout(softmax, 0.1))
    """

    def __init__(self, over: Over, p: float):
        super().__init__()
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
