"""Each place by itself: what a sigmoid over the scores is a distribution over."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import register_kl

from regard.positions.base import Positions, exported, read_places, wide
from regard.positions.several import check_enumerable


@exported
@dataclass(eq=False, repr=False)
class Independent(Positions):
    """K independent places, each looked at with the probability sigmoid(score); a score of -inf is never.

    An event is a label for every place: 1 where it is looked at, 0 where not. What is read is the sum over the places
    with label 1.

    Shapes: scores (*B, Q, K); batch_shape (*B, Q), event_shape (K,). Every method takes O(K) a query, reading by
    `gather` included.

    >>> positions = Independent(torch.tensor([[0.0, float("-inf")]]))
    >>> positions.mean
    tensor([[0.5000, 0.0000]])
    >>> positions.log_prob(torch.tensor([[[1, 0]], [[0, 0]], [[1, 1]]])).exp().squeeze(-1)
    tensor([0.5000, 0.5000, 0.0000])
    """

    scores: Float[Tensor, "*B Q K"]

    has_enumerate_support = True
    has_relaxed = True

    def __post_init__(self) -> None:
        super().__init__(self.scores.shape[:-1], self.scores.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        """The probability that each place is looked at."""
        return self.scores.sigmoid()

    @property
    def mode(self) -> Int[Tensor, "*B Q K"]:
        """Every place whose probability is above one half."""
        return (self.scores > 0).long()

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q K"]:
        """A label for every place: whether a number between 0 and 1, drawn evenly, is below its probability."""
        with torch.no_grad():
            return coins(self.scores, sample_shape).long()

    def relax(self, temperature: float) -> Float[Tensor, "*B Q K"]:
        """A binary concrete draw, sigmoid((s + logistic noise) / temperature) (Maddison et al. 2017)."""
        even = torch.rand_like(wide(self.scores).detach())
        noise = even.logit(torch.finfo(even.dtype).tiny)  # of the number that a draw would compare
        return ((self.scores - noise) / temperature).sigmoid().to(self.scores.dtype)

    def log_prob(self, value: Int[Tensor, "*SB Q K"]) -> Float[Tensor, "*SB Q"]:
        """The log-probability of the labels, -inf where a place has label 1 that is never looked at."""
        return F.logsigmoid(self.scores * (2 * value - 1)).sum(-1)

    def entropy(self) -> Float[Tensor, "*B Q"]:
        """The entropy, the sum of the places' entropies, in nats."""
        return -expected_log_prob(self.scores, (-self.scores).sigmoid(), self.mean)

    def indicator(self, z: Int[Tensor, "*SB Q K"]) -> Float[Tensor, "*SB Q K"]:
        """The labels as a 0/1 tensor."""
        return z.to(self.scores.dtype)

    def gather(self, values: Any, z: Int[Tensor, "*SB Q K"]) -> Float[Tensor, "*SB Q V"]:
        """The sum of the values at the places with label 1; a reader is asked for these places alone."""
        if isinstance(values, Tensor):
            return z.to(values.dtype) @ values
        places = torch.arange(z.shape[-1], device=z.device).where(z > 0, -1)
        return read_places(values, places.flatten(-2)).unflatten(-2, z.shape[-2:]).sum(-2)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "E *B Q K"]:
        """Every event: all 2^K labellings, in the order of the binary numbers, the first place their lowest digit."""
        places = self.scores.shape[-1]
        check_enumerable(2**places)
        digits = torch.arange(places, device=self.scores.device)
        labels = (torch.arange(2**places, device=self.scores.device).unsqueeze(-1) >> digits) & 1
        labels = labels.view(-1, *(1 for _ in self.batch_shape), places)
        return labels.expand(-1, *self.batch_shape, places) if expand else labels


def coins(scores: Float[Tensor, "*B"], sample_shape: torch.Size | tuple[int, ...] = ()) -> Bool[Tensor, "*SB"]:
    """Whether each is so, with the probability sigmoid(score): compared with even numbers, in float32 at least."""
    chances = wide(scores).sigmoid()
    return torch.rand_like(chances.expand(*sample_shape, *chances.shape)) < chances


def expected_log_prob(
    scores: Float[Tensor, "*B Q K"], absent: Float[Tensor, "*B Q K"], present: Float[Tensor, "*B Q K"]
) -> Float[Tensor, "*B Q"]:
    """The mean log-probability, under Independent(scores), of labels with these chances to be 0 and to be 1."""
    log_present = F.logsigmoid(scores).masked_fill(present == 0, 0)
    return (present * log_present + absent * F.logsigmoid(-scores)).sum(-1)


@register_kl(Independent, Independent)
def _kl_independent_independent(p: Independent, q: Independent) -> Tensor:
    return -p.entropy() - expected_log_prob(q.scores, (-p.scores).sigmoid(), p.mean)
