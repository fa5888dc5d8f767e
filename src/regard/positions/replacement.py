"""k places in order, drawn one after the other without replacement."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from regard.positions.algorithms.counts import balance, count_tree, leaf_expectations
from regard.positions.base import INFINITY, exported, gumbel_like, safe_log, take
from regard.positions.onehot import OneHot
from regard.positions.several import Several

NEVER = -1e30
"""A finite score of a place that is never drawn, whose gradients are zero and not NaN."""


@exported
@dataclass(eq=False, repr=False)
class WithoutReplacement(Several):
    """k different places in order, each drawn from a softmax over the places that are left: Plackett-Luce.

    p(z) = prod_{i=1}^{k} exp(s_{z_i}) / sum_{j not in z_1 .. z_{i-1}} exp(s_j)

    (Plackett 1975, "The analysis of permutations"; drawn by the Gumbel top-k trick, Kool, van Hoof and Welling 2019,
    "Stochastic beams and where to find them"). A score of -inf is a place that may not be drawn.

    An event is the k places in the order in which they were drawn; where fewer than k are allowed, all of them are
    drawn, and the rest of the event is -1, last. What is read is the sum over the drawn places.

    `mean` is exact: a place is among the first k if fewer than k of the others arrive before it, in a race in which
    place i arrives at the rate exp(s_i); the integral over the time of its arrival is a sum over 20 sqrt(k + 15) nodes,
    to 1e-12. `entropy` and `kl` have no closed form: they go through all events of the first k - 1 places drawn, and
    raise ValueError where those are more than 100,000; there, -log_prob(sample()) is an unbiased estimate of the
    entropy.

    Shapes: scores (*B, Q, K), k an integer; batch_shape (*B, Q), event_shape (k,). `sample` and `mode` take O(K) a
    query, `log_prob` and `mean` O(K k) (times the nodes), `gather` O(k).
    Raises ValueError unless k is at least 1.

    >>> positions = WithoutReplacement(torch.tensor([[0.5, 0.25, 0.25]]).log(), 2)
    >>> positions.log_prob(torch.tensor([[0, 1]])).exp()      # 1/2, then 1/4 out of 1/2
    tensor([0.2500])
    >>> positions.mean
    tensor([[0.8333, 0.5833, 0.5833]])
    """

    has_relaxed = True

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        """The probability that each place is among the k."""
        scores = self._wide_scores
        scores = scores + balance(scores, self.count, self.k, arrived)
        log_times, steps = race_times(self.k, scores)
        rates = (scores.unsqueeze(-2) + log_times.unsqueeze(-1)).clamp(max=7).exp()  # (*B, Q, N, K), times the time
        arrivals = rates * (-rates).exp() * steps.unsqueeze(-1)
        ahead = self._fewer_ahead(rates)
        early = scores > 0  # their integral is the smaller from the other side, and ends at the same time
        late = (arrivals * torch.where(early.unsqueeze(-2), 1 - ahead, ahead)).sum(-2)
        return torch.where(early, 1 - late, late).to(self.scores.dtype)

    @property
    def mode(self) -> Int[Tensor, "*B Q k"]:
        """The k places with the best scores, best first."""
        return self._best(self.scores)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q k"]:
        """k places, drawn by Gumbel top-k: the k best of the scores plus Gumbel noise, best first."""
        with torch.no_grad():
            return self._best(self._noisy(sample_shape))

    def relax(self, temperature: float) -> Float[Tensor, "*B Q K"]:
        """A relaxed draw, the sum of k softmaxes of the noisy scores, after each of which log(1 - it) is added to the
        scores (Xie and Ermon 2019, "Reparameterizable subset sampling via continuous relaxations")."""
        noisy = self._noisy(()).clamp(min=NEVER)
        relaxed = torch.zeros_like(noisy)
        for drawn in range(self.k):
            place = (noisy / temperature).softmax(-1)
            noisy = (noisy + safe_log(1 - place)).clamp(min=NEVER)
            relaxed = relaxed + place * (drawn < self.count).unsqueeze(-1)
        return relaxed.to(self.scores.dtype)

    def log_prob(self, value: Int[Tensor, "*SB Q k"]) -> Float[Tensor, "*SB Q"]:
        """The log-probability of the places in this order, -inf where it cannot be."""
        scores = self._wide_scores.clamp(min=NEVER)
        drawn = take(scores, value.clamp(min=0), -1)  # (*S, *B, Q, k)
        now = value.unsqueeze(-1) == torch.arange(scores.shape[-1], device=value.device)  # (*S, *B, Q, k, K)
        before = now.cumsum(-2) > now
        odds = (scores.unsqueeze(-2) - drawn.unsqueeze(-1)).masked_fill(before, NEVER)
        log_prob = -odds.logsumexp(-1).masked_fill(value < 0, 0).sum(-1)
        return log_prob.masked_fill(~self._possible(value), -INFINITY).to(self.scores.dtype)

    def entropy(self) -> Float[Tensor, "*B Q"]:
        """The entropy, the sum of those of the k draws, each a mean over what was drawn before, in nats."""
        return self._sum_over_draws(lambda places, _: places.entropy(), self)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "E *B Q k"]:
        """Every k places in every order, then, for rows that allow no more, fewer; -1 where there is no place."""
        return self._support(itertools.permutations, math.perm, expand)

    def importance(self, z: Int[Tensor, "*SB Q k"]) -> Float[Tensor, "*SB Q k"]:
        """What each drawn place counts, so that the sum over them is on average that over all places by the softmax of
        the scores: w_j = (1 - sum_{i < j} p_i + (k - j) p_j) / k for the j-th of k (Raj 1956, "Some estimators in
        sampling with varying probabilities without replacement", section 3; Katharopoulos and Fleuret 2019, "Processing
        megapixel images with deep attention-sampling models", on sampling without replacement). They sum to one.

        The j-th draw alone would have the places before it count p_i, and itself what is left; this is the mean over j.
        Each derivative is on average that of the softmax, too: it goes through p_j / p_j, of which one is held fixed.

        >>> positions = WithoutReplacement(torch.tensor([[0.5, 0.25, 0.25]]).log(), 2)
        >>> positions.importance(torch.tensor([[0, 1]]))      # (1 + 1/2) / 2, then (1 - 1/2) / 2
        tensor([[0.7500, 0.2500]])
        """
        scores, drawn = self._wide_scores.clamp(min=NEVER), z >= 0
        log_p = take(scores.log_softmax(-1), z.clamp(min=0), -1)
        p = log_p.detach().exp() * drawn
        number, each = drawn.sum(-1, keepdim=True), torch.arange(1, self.k + 1, device=z.device)
        weights = (1 - p.cumsum(-1) + p + (number - each) * p) / number.clamp(min=1) * drawn
        return (weights * (log_p - log_p.detach()).exp()).to(self.scores.dtype)

    def _noisy(self, sample_shape: torch.Size | tuple[int, ...]) -> Tensor:
        scores = self._wide_scores.expand(*sample_shape, *self.scores.shape)
        return scores + gumbel_like(scores)

    def _fewer_ahead(self, rates: Tensor) -> Tensor:
        """The probability that fewer than k of the other places have arrived, (*B, Q, N, K)."""
        levels = count_tree((-rates).exp(), -torch.expm1(-rates), self.k - 1)
        root = levels[-1].squeeze(-2)
        fewer = (torch.arange(root.shape[-1], device=root.device) < self.k).to(root.dtype).expand_as(root)
        return leaf_expectations(levels, fewer)[..., : rates.shape[-1], 0]

    def _sum_over_draws(self, quantity: Callable[[OneHot, OneHot], Tensor], other: "WithoutReplacement") -> Tensor:
        """The sum over the k draws of the mean, over what was drawn before, of a quantity of the two next draws."""
        total = quantity(OneHot(scores=self.scores), OneHot(scores=other.scores))
        for drawn in reversed(range(1, self.k)):  # the longest first: it may be too long
            before = WithoutReplacement(self.scores, drawn)
            z = before.enumerate_support()
            probability = before.log_prob(z).exp()
            drawn_already = before.indicator(z) > 0
            left, others = (OneHot(scores=p.scores.masked_fill(drawn_already, -INFINITY)) for p in (self, other))
            each = quantity(left, others).masked_fill(probability == 0, 0)
            total = total + (probability * each).sum(0)
        return total


def arrived(log_time: Tensor) -> Tensor:
    """The chance that a place has arrived, at this logarithm of its rate times the time: 1 - exp(-exp(log_time))."""
    return -torch.expm1(-log_time.exp())


def race_times(k: int, like: Tensor) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The nodes and weights of an integral over the logarithm of time, x = u - exp(-u) at evenly spaced u.

    This change of variable makes both tails fall double-exponentially (Takahasi and Mori 1974, "Double exponential
    formulas for numerical integration"); the time of the k-th arrival has a spread of 1 / sqrt(k).
    """
    step = 0.4 / math.sqrt(k + 15)
    even = step * torch.arange(round(-3.6 / step), round(4.2 / step), dtype=like.dtype, device=like.device)
    return even - (-even).exp(), step * (1 + (-even).exp())


@register_kl(WithoutReplacement, WithoutReplacement)
def _kl_without_replacement(p: WithoutReplacement, q: WithoutReplacement) -> Tensor:
    if p.k != q.k:
        raise ValueError(f"kl expected two draws of equally many places, but got {p.k} and {q.k}.")
    return p._sum_over_draws(kl_divergence, q)
