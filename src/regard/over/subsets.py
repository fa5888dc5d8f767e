"""Distributions over k places: sets, and draws without replacement."""

from dataclasses import dataclass

from regard.masks import checked
from regard.over.mappings import Mask, Scores, at_least_one, masked
from regard.positions import Subset, WithoutReplacement


@dataclass(frozen=True)
class subset:
    """Sets of k places with probability proportional to the exponential of the sum of their scores, the conditional
    Bernoulli distribution (Chen, Dempster and Liu 1994). Time O(K k).

    >>> import torch
    >>> subset(2)(torch.zeros(1, 4)).mean
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    k: int

    def __post_init__(self) -> None:
        at_least_one("subset", self.k)

    def __call__(self, scores: Scores, mask: Mask = None) -> Subset:
        return Subset(masked(scores, checked(mask, scores.shape)), self.k)


@dataclass(frozen=True)
class without_replacement:
    """Ordered draws of k places, each from the softmax over those that remain (Plackett 1975; Luce 1959), made by
    the Gumbel top-k trick (Kool et al. 2019, section 3.1).

    >>> import torch
    >>> without_replacement(2)(torch.tensor([[1.0, 3.0, 2.0]])).mode
    tensor([[1, 2]])
    """

    k: int

    def __post_init__(self) -> None:
        at_least_one("without_replacement", self.k)

    def __call__(self, scores: Scores, mask: Mask = None) -> WithoutReplacement:
        return WithoutReplacement(masked(scores, checked(mask, scores.shape)), self.k)
