"""Sets of k places: the distribution in which a set's score is the sum of its places' scores."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import register_kl

from regard.positions.algorithms.counts import balance, count_tree, leaf_expectations, sample_leaves
from regard.positions.base import INFINITY, exported
from regard.positions.independent import Independent, expected_log_prob
from regard.positions.several import Several


@exported
@dataclass(eq=False, repr=False)
class Subset(Several):
    """A set of k of the K places, with probability proportional to the exponential of the sum of its scores.

    p(z) = exp(sum_{i in z} s_i) / e_k(exp s), where e_k is the elementary symmetric polynomial; this is the conditional
    Bernoulli distribution (Chen, Dempster and Liu 1994, "Weighted finite population sampling to maximize entropy").
    A score of -inf is a place that may not be chosen.

    It is computed as what it is called after. For any number t, p(z) is the probability of z under independent places
    with probabilities sigmoid(s_i + t), given that k are chosen. t is such that k are chosen on average; then no
    probability that matters is small, and exact sums of products of probabilities do, without logarithms, at scores
    of any size.

    An event is the k places in ascending order; where fewer than k are allowed, all of them are chosen, and the rest
    of the event is -1, last. `log_prob` takes them in any order. What is read is the sum over the chosen places.

    Where a query has `room` for fewer than k, so many are chosen.

    Shapes: scores (*B, Q, K), k an integer, room (*B, Q); batch_shape (*B, Q), event_shape (k,). Every method takes
    O(K k) a query and log2 K batched steps, but `gather` O(k).
    Raises ValueError unless k is at least 1.

    >>> positions = Subset(torch.tensor([[0.0, 0.0, float("-inf"), 0.0]]), 2)
    >>> positions.mean
    tensor([[0.6667, 0.6667, 0.0000, 0.6667]])
    >>> positions.log_prob(torch.tensor([[0, 3]])).exp()
    tensor([0.3333])
    """

    room: Int[Tensor, "*B Q"] | None = None

    @property
    def count(self) -> Int[Tensor, "*B Q"]:
        """How many places are chosen: k, or as many as there is room for, or as are allowed."""
        count = self._allowed.sum(-1).clamp(max=self.k)
        return count if self.room is None else count.minimum(self.room)

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        """The probability that each place is among the chosen."""
        balanced = self._balanced
        return self._chances(balanced, self._tree(balanced))[1].to(self.scores.dtype)

    @property
    def mode(self) -> Int[Tensor, "*B Q k"]:
        """The k places with the best scores."""
        ranks = torch.arange(self.k, device=self.scores.device)
        best = self._best(self.scores).where(ranks < self.count.unsqueeze(-1), -1)
        return self._ascending(self.indicator(best))

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q k"]:
        """A set, drawn down the tree: how many of the chosen lie in its left half, and so on in each half."""
        with torch.no_grad():
            total = self.count.expand((*sample_shape, *self.batch_shape))
            labels = sample_leaves(self._tree(self._balanced), total, self.k)
            return self._ascending(labels[..., : self.scores.shape[-1]])

    def log_prob(self, value: Int[Tensor, "*SB Q k"]) -> Float[Tensor, "*SB Q"]:
        """The log-probability of the set, -inf where a place is repeated or not allowed, or the number is not right."""
        balanced = self._balanced
        log_prob = Independent(balanced).log_prob(self.indicator(value).long()) - self._log_chance(self._tree(balanced))
        return log_prob.masked_fill(~self._possible(value), -INFINITY).to(self.scores.dtype)

    def entropy(self) -> Float[Tensor, "*B Q"]:
        """The entropy, in nats."""
        return -self._expected_log_prob(self).to(self.scores.dtype)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "E *B Q k"]:
        """Every set of k places, then, for rows that allow no more, of fewer; -1 where there is no place."""
        return self._support(itertools.combinations, math.comb, expand)

    @property
    def _balanced(self) -> Tensor:
        """The scores + t."""
        scores = self._wide_scores
        return scores + balance(scores, self.count, self.k, torch.sigmoid)

    def _tree(self, balanced: Tensor) -> list[Tensor]:
        return count_tree((-balanced).sigmoid(), balanced.sigmoid(), self.k)

    def _total(self, levels: list[Tensor]) -> Tensor:
        """The count that the root must have, as a 0/1 tensor over its counts."""
        root = levels[-1]
        return (torch.arange(root.shape[-1], device=root.device) == self.count.unsqueeze(-1)).to(root.dtype)

    def _log_chance(self, levels: list[Tensor]) -> Tensor:
        """The log-probability that the independent places are as many as they must be."""
        return (levels[-1].squeeze(-2) * self._total(levels)).sum(-1).log()

    def _chances(self, balanced: Tensor, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The probabilities (*B, Q, K) that a place is not, and is, among the chosen."""
        others = leaf_expectations(levels, self._total(levels))[..., : balanced.shape[-1], :]
        joint = torch.stack(((-balanced).sigmoid(), balanced.sigmoid()), -1) * others
        absent, present = (joint / joint.sum(-1, keepdim=True)).unbind(-1)
        return absent, present

    def _expected_log_prob(self, other: "Subset") -> Tensor:
        """The mean under this distribution of the other's log-probability, if they choose equally many places."""
        balanced, others = self._balanced, other._balanced
        independent = expected_log_prob(others, *self._chances(balanced, self._tree(balanced)))
        return independent - other._log_chance(other._tree(others))

    def _ascending(self, labels: Tensor) -> Tensor:
        """The indices of the labels above zero in ascending order, then -1."""
        descending = -torch.arange(labels.shape[-1], device=labels.device, dtype=torch.float64)
        return self._best(descending.where(labels > 0, -INFINITY))


@register_kl(Subset, Subset)
def _kl_subset_subset(p: Subset, q: Subset) -> Tensor:
    if p.k != q.k:
        raise ValueError(f"kl expected two subsets of equally many places, but got {p.k} and {q.k}.")
    divergence = p._expected_log_prob(p) - p._expected_log_prob(q)
    return divergence.masked_fill(p.count != q.count, INFINITY).to(p.scores.dtype)
