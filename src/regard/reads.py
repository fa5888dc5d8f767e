"""Mean, sample or mode of a distribution? Every read maps (positions, values) to (context, z, log_prob).

`values` is a tensor (*B, K, V) or anything with `.read(z)`. Reading the mean is soft attention and looks at every
place. Reading a sample or the mode is hard attention: it gathers what the event z points at and nothing else, so that
after the draw its forward cost does not depend on K. `z` and `log_prob` are None where no event was drawn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from regard.positions import Positions, WithoutReplacement
from regard.positions.base import read_places, weighted_mean

Read = tuple[Tensor, Any, Any]


def mean(positions: Positions, values: Any) -> Read:
    """Soft attention, the expectation of what is read, sum_k p_k v_k (Bahdanau et al. 2015, equation 5).

    >>> import torch
    >>> from regard import OneHot
    >>> mean(OneHot(weights=torch.tensor([[0.25, 0.75]])), torch.tensor([[0.0], [4.0]]))[0]
    tensor([[3.]])
    """
    return positions.expect(values), None, None


def weighed(positions: Positions, values: Any) -> tuple[Tensor, None, None, Tensor]:
    """The mean, and last the weights by which it is taken.

    >>> import torch
    >>> from regard import OneHot
    >>> weighed(OneHot(weights=torch.tensor([[0.25, 0.75]])), torch.tensor([[0.0], [4.0]]))
    (tensor([[3.]]), None, None, tensor([[0.2500, 0.7500]]))
    """
    weights = positions.mean
    if type(positions).expect is not Positions.expect:
        return positions.expect(values), None, None, weights
    return weighted_mean(weights, values), None, None, weights


def sample(positions: Positions, values: Any) -> Read:
    """Hard attention: one event is drawn and read (Xu et al. 2015, equations 8 and 9).

    No gradient reaches the scores through the context; an estimator brings it through `log_prob`.

    >>> import torch
    >>> from regard import OneHot
    >>> context, z, log_prob = sample(OneHot(weights=torch.tensor([[0.0, 1.0]])), torch.tensor([[0.0], [4.0]]))
    >>> context, z
    (tensor([[4.]]), tensor([1]))
    """
    return _gather(positions, values, positions.sample())


def mode(positions: Positions, values: Any) -> Read:
    """Greedy attention: the most probable event is read.

    >>> import torch
    >>> from regard import OneHot
    >>> mode(OneHot(weights=torch.tensor([[0.25, 0.75]])), torch.tensor([[0.0], [4.0]]))[0]
    tensor([[4.]])
    """
    return _gather(positions, values, positions.mode)


def online(positions: Positions, values: Any) -> Read:
    """Greedy attention of a decoder that knows no query after the one at hand, for positions that have an `online`
    event: a monotonic alignment stops at the first place that it would rather stop at than pass (Raffel et al. 2017,
    section 2.2). Its `mode`, the most probable alignment of all queries, may stop elsewhere.

    >>> import torch
    >>> from regard import Alignment
    >>> online(Alignment(torch.tensor([[-1.0, 2.0]])), torch.tensor([[0.0], [4.0]]))[0]
    tensor([[4.]])
    """
    return _gather(positions, values, positions.online)


class Hard:
    """A sample in training, the mode in evaluation: the read of a model that learns by exploring."""

    def at(self, step: Any) -> Callable[[Positions, Any], Read]:
        return sample if step.training else mode

    def __repr__(self) -> str:
        return "hard"


hard = Hard()


def straight_through(positions: Positions, values: Any) -> Read:
    """A sample in the forward pass, with the gradient of the mean (Bengio et al. 2013, section 4). Biased.

    The values get the gradient of the places that were read. Time O(Q K V) for the gradient's sake.

    >>> import torch
    >>> from regard import OneHot
    >>> weights = torch.tensor([[0.25, 0.75]], requires_grad=True)
    >>> straight_through(OneHot(weights=weights), torch.tensor([[0.0], [4.0]]))[0].sum().backward()
    >>> weights.grad
    tensor([[0., 4.]])
    """
    context, z, log_prob = sample(positions, values)
    expected = positions.expect(values.detach() if isinstance(values, Tensor) else _Detached(values))
    return context + (expected - expected.detach()), z, log_prob


@dataclass(frozen=True)
class _Detached:
    """A reader through which no gradient flows."""

    values: Any

    @property
    def block(self) -> int | None:
        return getattr(self.values, "block", None)

    def read(self, z: Tensor) -> Tensor:
        return self.values.read(z).detach()


@dataclass(frozen=True)
class relaxed:
    """A relaxed sample, through which gradients flow: the values weighted by a Gumbel-softmax draw (Jang et al. 2017,
    equation 2; Maddison et al. 2017). Unbiased for the relaxed objective, biased for that of true samples; the lower
    the temperature, the smaller the bias and the larger the variance.

    Raises ValueError unless the temperature is positive, and TypeError for a distribution without relaxed events.

    >>> import torch
    >>> from regard import OneHot
    >>> relaxed(0.5)(OneHot(weights=torch.tensor([[0.0, 1.0]])), torch.tensor([[0.0], [4.0]]))[0]
    tensor([[4.]])
    """

    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"relaxed expected a temperature above zero, but got {self.temperature}.")

    def __call__(self, positions: Positions, values: Any) -> Read:
        weights = positions.relax(self.temperature)
        return weighted_mean(weights, values), None, None


def importance(positions: Positions, values: Any) -> Read:
    """A few places, drawn without replacement and weighted: on average the mean under the softmax of the scores, in
    value and in gradient (Katharopoulos and Fleuret 2019; Raj 1956). Unbiased, and no estimator is needed.

    The weights are those of `WithoutReplacement.importance`. Time and memory O(k V) after the draw.
    Raises TypeError for positions that are not draws without replacement.

    >>> import torch
    >>> scores = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> context, z, _ = importance(WithoutReplacement(scores, 3), torch.ones(3, 1))
    >>> context, z.shape
    (tensor([[1.]]), torch.Size([1, 3]))
    """
    if not isinstance(positions, WithoutReplacement):
        raise TypeError(f"importance expected draws without replacement, but got {type(positions).__name__}.")
    z = positions.sample()
    each = read_places(values, z.flatten(-2)).unflatten(-2, z.shape[-2:])  # (*B, Q, k, V)
    context = (positions.importance(z).unsqueeze(-1) * each).sum(-2)
    log_prob = positions.log_prob(z)
    return spoilt(context, log_prob), z, log_prob


def _gather(positions: Positions, values: Any, z: Tensor) -> Read:
    context, log_prob = positions.gather(values, z), positions.log_prob(z)
    return spoilt(context, log_prob), z, log_prob


def spoilt(context: Tensor, log_prob: Tensor) -> Tensor:
    """The context of an event, NaN where its log-probability is: no place was chosen there.

    >>> import torch
    >>> spoilt(torch.ones(2, 1), torch.tensor([0.0, torch.nan])).flatten()
    tensor([1., nan])
    """
    wrong = log_prob.isnan().view(*log_prob.shape, *(1 for _ in context.shape[log_prob.dim() :]))
    return context.masked_fill(wrong, math.nan) if context.is_floating_point() else context
