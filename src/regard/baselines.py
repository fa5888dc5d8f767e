"""What is subtracted from a cost so that `reinforce` has less variance: the better it predicts the cost, the less.

A baseline must not depend on the draw whose cost it is subtracted from, or the estimator is biased; each of these says
how it keeps to that.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


class Constant(nn.Module):
    """A baseline that is a fixed number.

    >>> Constant(0.5)(torch.ones(3))
    tensor([0.5000, 0.5000, 0.5000])
    """

    value: Tensor

    def __init__(self, value: float):
        super().__init__()
        self.register_buffer("value", torch.tensor(value))

    def forward(self, cost: Shaped[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return _like(self.value, cost)


class MovingAverage(nn.Module):
    """A baseline that is the average of the costs seen so far in training, exponentially forgotten (Xu et al. 2015,
    section 4.1: momentum 0.9).

    What is returned does not yet contain the cost at hand, so that the estimator stays unbiased. The average is
    debiased as in Adam, zero before the first cost; it is saved with the model. Raises ValueError unless
    0 <= momentum < 1.

    >>> baseline = MovingAverage(momentum=0.5)
    >>> [baseline(torch.tensor([cost])).item() for cost in (4.0, 8.0, 8.0)]
    [0.0, 4.0, 6.666666507720947]
    """

    total: Tensor
    weight: Tensor

    def __init__(self, momentum: float = 0.9):
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"MovingAverage expected a momentum of at least 0 and below 1, but got {momentum}.")
        self.momentum = momentum
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, cost: Shaped[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        average = self.total / self.weight.clamp_min(torch.finfo(self.weight.dtype).tiny)
        if self.training:
            self.total = torch.lerp(cost.detach().to(self.total.dtype).mean(), self.total, self.momentum)
            self.weight = torch.lerp(torch.ones_like(self.weight), self.weight, self.momentum)
        return _like(average, cost)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}"


class Learned(nn.Module):
    """A baseline that a small network predicts from what the policy knew, b(h) = w2 . relu(W1 h + b1) + b2 (Mnih et al.
    2014, section 3.2; Mnih and Gregor 2014, section 2.3).

    The features are detached, so that fitting the baseline trains nothing else. Fit it by a term of its own in the
    loss: `(baseline(features) - cost.detach()).square()`.

    >>> Learned(features=3, hidden=8)(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5])
    """

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, features: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
        return self.network(features.detach()).squeeze(-1)


class SelfCritical(nn.Module):
    """A baseline that is the cost of the model's own greedy choice on the same input (Rennie et al. 2017).

    `cost` is a function of the inputs that looks by `mode`, such as the model's loss with `training=False`; it is
    called without gradients.

    >>> SelfCritical(lambda inputs: inputs.square())(torch.tensor([2.0]))
    tensor([4.])
    """

    def __init__(self, cost: Callable[..., Tensor]):
        super().__init__()
        self.cost = cost

    def forward(self, *inputs) -> Tensor:
        with torch.no_grad():
            return self.cost(*inputs)


def _like(value: Tensor, cost: Tensor) -> Tensor:
    """One number for every cost, in the precision of the costs if they have one."""
    return value.to(cost.dtype if cost.is_floating_point() else value.dtype).expand_as(cost)
