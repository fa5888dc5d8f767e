"""How does a gradient get through a sample? Add one of these to the cost, and backpropagate their mean.

A score-function estimator is a *surrogate*: its value is zero, so that the loss that is printed is the cost, and its
gradient is an estimate of what the gradient of the cost through the draw would be. The log-probability is summed over
the dimensions that the cost lacks; the shape of the cost must be a prefix of it, and the baseline may have any shape
between the two, such as one number a step. Pathwise estimators are reads: `straight_through`, `relaxed`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.positions import Positions


def reinforce(
    log_prob: Float[Tensor, "..."], cost: Float[Tensor, "*B"], baseline: float | Tensor = 0.0
) -> Float[Tensor, "*B"]:
    """The score-function estimator, (cost - baseline) d log p(z) (Williams 1992, theorem 1). Unbiased if the baseline
    does not depend on z.

    No gradient reaches the cost or the baseline through it. Raises ValueError for shapes that do not fit.

    >>> log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    >>> surrogate = reinforce(log_prob, cost=torch.tensor([3.0, 1.0]), baseline=2.0)
    >>> surrogate.sum().backward()
    >>> surrogate.tolist(), log_prob.grad.tolist()
    ([0.0, 0.0], [1.0, -1.0])
    """
    _check_prefix("cost", cost, log_prob)
    advantage = _trailing(cost, log_prob)
    if isinstance(baseline, Tensor) and baseline.dim():
        _check_prefix("baseline", baseline, log_prob)
        baseline = _trailing(baseline, log_prob)
    surrogate = (advantage - baseline).detach() * (log_prob - log_prob.detach())
    return surrogate.flatten(cost.dim()).sum(-1) if log_prob.dim() > cost.dim() else surrogate


def leave_one_out(log_prob: Float[Tensor, "S ..."], cost: Float[Tensor, "S *B"]) -> Float[Tensor, "S *B"]:
    """`reinforce` with the mean cost of the other draws as the baseline (Kool et al. 2019, "Buy 4
    REINFORCE samples, get a baseline for free!"). Unbiased.

    The S draws are the first dimension, drawn independently; average over it. Raises ValueError for fewer than two.

    >>> log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    >>> leave_one_out(log_prob, cost=torch.tensor([3.0, 1.0])).mean().backward()
    >>> log_prob.grad
    tensor([ 1., -1.])
    """
    draws = cost.shape[0] if cost.dim() else 0
    if draws < 2:
        raise ValueError(f"leave_one_out expected at least 2 draws in the first dimension of cost, but got {draws}.")
    return reinforce(log_prob, cost, (cost.sum(0) - cost) / (draws - 1))


def enumerate_exactly(positions: Positions, cost: Callable[[Tensor], Float[Tensor, "N *B"]]) -> Float[Tensor, "*B"]:
    """The expected cost, sum_z p(z) cost(z), by going through every event: exact, and differentiable as it stands.

    `cost` maps all N events, (N, *B, ...), to their costs (N, *B); rows of the batch are enumerated side by side, so
    the cost of a row may depend on that row's event alone. Raises TypeError for a distribution that cannot be
    enumerated.

    >>> from saccade import OneHot
    >>> positions = OneHot(weights=torch.tensor([[0.25, 0.75]]))
    >>> enumerate_exactly(positions, lambda z: torch.where(z == 0, 4.0, 8.0))
    tensor([7.])
    """
    if not positions.has_enumerate_support:
        raise TypeError(f"enumerate_exactly expected events that can be enumerated, not {type(positions).__name__}.")
    support = positions.enumerate_support()
    probability = positions.log_prob(support).exp()
    return (probability * cost(support).masked_fill(probability == 0, 0)).sum(0)


class Constant(nn.Module):
    """A baseline that is a fixed number.

    >>> Constant(0.5)(torch.ones(3))
    tensor([0.5000, 0.5000, 0.5000])
    """

    value: Tensor

    def __init__(self, value: float):
        super().__init__()
        self.register_buffer("value", torch.tensor(value))

    def forward(self, cost: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.value.to(cost.dtype).expand_as(cost)


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

    def forward(self, cost: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        average = (self.total / self.weight.clamp_min(torch.finfo(self.weight.dtype).tiny)).to(cost.dtype)
        if self.training:
            self.total = torch.lerp(cost.detach().mean().to(self.total.dtype), self.total, self.momentum)
            self.weight = torch.lerp(torch.ones_like(self.weight), self.weight, self.momentum)
        return average.expand_as(cost)

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


def _check_prefix(name: str, short: Tensor, log_prob: Tensor) -> None:
    if short.shape != log_prob.shape[: short.dim()]:
        raise ValueError(
            f"{name} expected a shape that is a prefix of the log-probability's {tuple(log_prob.shape)}, "
            f"but got {tuple(short.shape)}."
        )


def _trailing(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor with dimensions of one behind, to the rank of the other."""
    return tensor.view(*tensor.shape, *(1,) * (other.dim() - tensor.dim()))
