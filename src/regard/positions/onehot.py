"""One place at most: what softmax, sparsemax and their like are distributions over."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import register_kl

from regard.positions.algorithms import categorical
from regard.positions.algorithms.categorical import inverse, unblock
from regard.positions.base import INFINITY, Positions, exported, gumbel_like, safe_log, take


@exported
@dataclass(eq=False, repr=False)
class OneHot(Positions):
    """A distribution over K places and *nowhere*: one place at most is looked at.

    Give `weights`, whose lack to one is the probability of nowhere, or `scores`, whose softmax the weights are;
    a score of -inf is a place that may not be looked at, and a row of nothing else looks nowhere. Either way `mean`
    is the weights. An event is the index of a place, or -1 for nowhere, where nothing is read (zero).

    Shapes: weights or scores (*B, Q, K); batch_shape (*B, Q), event_shape (). Every method takes O(K) a query.
    Raises ValueError unless exactly one of the two is given.

    >>> positions = OneHot(weights=torch.tensor([[0.5, 0.0, 0.25]]))
    >>> positions.log_prob(torch.tensor([[0], [2], [-1]])).exp().squeeze(-1)
    tensor([0.5000, 0.2500, 0.2500])
    >>> positions.mode
    tensor([0])
    """

    weights: Float[Tensor, "*B Q K"] | None = None
    scores: Float[Tensor, "*B Q K"] | None = None

    has_enumerate_support = True
    has_relaxed = True

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.scores is None):
            name = type(self).__name__
            raise ValueError(f"{name} expected exactly one of weights and scores, but got both or neither.")
        super().__init__(self._given.shape[:-1], validate_args=False)

    @property
    def _given(self) -> Tensor:
        return self.scores if self.weights is None else self.weights  # pyright: ignore[reportReturnType]

    @property
    def places(self) -> int:
        """How many places there are, K."""
        return self._given.shape[-1]

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        """The weights: the probability of each place."""
        if self.weights is not None:
            return self.weights
        return torch.ops.aten._safe_softmax(self._given, -1)  # zero for a row of -inf alone

    @property
    def log_weights(self) -> Float[Tensor, "*B Q places"]:
        """The log-probability of each place and, last, where an index of -1 finds it, of nowhere."""
        if self.weights is not None:
            return safe_log(torch.cat((self.weights, lack(self.weights)), -1))
        scores, blocked = unblock(self._given)
        places = scores.log_softmax(-1).masked_fill(blocked, -INFINITY)
        return torch.cat((places, torch.zeros_like(places[..., :1]).masked_fill(~blocked, -INFINITY)), -1)

    @property
    def mode(self) -> Int[Tensor, "*B Q"]:
        """The most probable place, or -1 where nowhere is more probable."""
        if self.weights is not None:
            return self._place(self.log_weights.argmax(-1))
        best, place = self._given.max(-1)
        return place.masked_fill(best == -INFINITY, -1)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q"]:
        """A place for every query, by one uniform number: the first up to which the weights sum to more."""
        with torch.no_grad():
            noise = torch.rand(*sample_shape, *self.batch_shape, dtype=torch.float64, device=self.device)
            noise = noise.reshape(math.prod(sample_shape), *self.batch_shape).movedim(0, -1)  # (*B, Q, S)
            if self.weights is None:
                z = categorical.sample(self._given, noise)
            else:
                up_to = self.weights.cumsum(-1, dtype=torch.float64)
                z = self._place(inverse(up_to, noise * (up_to[..., -1:] + lack(self.weights))))
            return z.movedim(-1, 0).reshape(*sample_shape, *self.batch_shape)

    def relax(self, temperature: float) -> Float[Tensor, "*B Q K"]:
        """A Gumbel-softmax draw, softmax((log w + g) / temperature) (Jang et al. 2017, equation 2)."""
        log_weights = self.log_weights
        noisy = (log_weights + gumbel_like(log_weights)) / temperature
        return noisy.softmax(-1)[..., :-1].to(log_weights.dtype)

    def log_prob(self, value: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB Q"]:
        """The log-probability of the places, -inf where a place is impossible."""
        draws = value.shape[: max(0, value.dim() - len(self.batch_shape))]
        # Draws behind instead of in front: or the gradient would have the size of the weights once for each.
        z = value.reshape(math.prod(draws), *value.shape[len(draws) :]).movedim(0, -1)  # (*B, Q, S)
        if self.weights is None:
            log_prob = categorical.log_prob(self._given, z)
        else:
            log_prob = take(self.log_weights, z.masked_fill(z < 0, self.places), -1)
        return log_prob.movedim(-1, 0).reshape(*draws, *log_prob.shape[:-1])

    def entropy(self) -> Float[Tensor, "*B Q"]:
        """The entropy, nowhere included, in nats."""
        log_weights = self.log_weights
        return -_expectation(log_weights, log_weights)

    def indicator(self, z: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB Q K"]:
        """The place as a 0/1 tensor: all zero for nowhere."""
        return (z.unsqueeze(-1) == torch.arange(self.places, device=z.device)).to(self._given.dtype)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "places *B Q"]:
        """Every event: the K places in order, then nowhere (-1)."""
        support = torch.arange(self.places + 1, device=self.device)
        support = support.masked_fill(support == self.places, -1)
        support = support.view(-1, *(1 for _ in self.batch_shape))
        return support.expand(-1, *self.batch_shape) if expand else support

    def _place(self, column: Tensor) -> Tensor:
        return column.masked_fill(column == self._given.shape[-1], -1)


def lack(weights: Tensor) -> Tensor:
    """What the weights lack to one, (*B, Q, 1); a lack within rounding is none."""
    missing = 1 - weights.sum(-1, keepdim=True)
    return missing.masked_fill(missing <= 16 * torch.finfo(weights.dtype).eps, 0)


def _expectation(log_weights: Tensor, quantity: Tensor) -> Tensor:
    """The mean of a quantity that may be infinite where the probability is zero."""
    weights = log_weights.exp()
    return (weights * quantity.masked_fill(weights == 0, 0)).sum(-1)


@register_kl(OneHot, OneHot)
def _kl_onehot_onehot(p: OneHot, q: OneHot) -> Tensor:
    log_p, log_q = p.log_weights, q.log_weights
    return _expectation(log_p, log_p - log_q)
