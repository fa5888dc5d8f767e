"""How does a gradient get through a sample? Add one of these to the cost, and backpropagate their mean.

A score-function estimator is a *surrogate*: its value is zero, so that the loss that is printed is the cost, and its
gradient is an estimate of what the gradient of the cost through the draw would be. The log-probability is summed over
the dimensions that the cost lacks; the shape of the cost must be a prefix of it, and the baseline may have any shape
between the two, such as one number a step. A cost may be of integers or bool, such as `guess != label`. Pathwise
estimators are reads: `straight_through`, `relaxed`. How noisy an estimate is, `signal_to_noise` says.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from regard.positions import OneHot, Positions
from regard.positions.base import INFINITY, gumbel_like


def reinforce(
    log_prob: Float[Tensor, "..."],
    cost: Shaped[Tensor, "*B"],
    baseline: float | Tensor | Callable[[Tensor], Tensor] = 0.0,
) -> Float[Tensor, "*B"]:
    """The score-function estimator, (cost - baseline) d log p(z) (Williams 1992, theorem 1). Unbiased if the baseline
    does not depend on z.

    The baseline is a number, a tensor, or a function of the cost, such as a `MovingAverage`. No gradient reaches the
    cost or the baseline through it. Raises ValueError for shapes that do not fit.

    >>> log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    >>> surrogate = reinforce(log_prob, cost=torch.tensor([3.0, 1.0]), baseline=2.0)
    >>> surrogate.sum().backward()
    >>> surrogate.tolist(), log_prob.grad.tolist()
    ([0.0, 0.0], [1.0, -1.0])
    """
    _check_prefix("cost", cost, log_prob)
    cost = _real(cost, log_prob.dtype)
    advantage = _trailing(cost, log_prob)
    if not isinstance(baseline, Tensor) and callable(baseline):
        baseline = baseline(cost)
    if isinstance(baseline, Tensor) and baseline.dim():
        _check_prefix("baseline", baseline, log_prob)
        baseline = _trailing(baseline, log_prob)
    return _summed(_score(log_prob, (advantage - baseline).detach()), cost.dim())


def leave_one_out(log_prob: Float[Tensor, "S ..."], cost: Shaped[Tensor, "S *B"]) -> Float[Tensor, "S *B"]:
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
    cost = _real(cost, log_prob.dtype)
    return reinforce(log_prob, cost, (cost.sum(0) - cost) / (draws - 1))


def to_go(cost: Shaped[Tensor, "*B T"], discount: float = 1.0) -> Float[Tensor, "*B T"]:
    """What each step costs together with all that follow, G_t = sum_k discount^k c_(t + k) (Sutton and Barto 2018,
    equation 3.8).

    The steps are the last dimension. With it a choice is credited with what came after it only: the sum over earlier
    steps has a gradient of zero on average, and adds noise. O(T) in time. Raises ValueError unless
    0 <= discount <= 1, or for a number without steps.

    >>> to_go(torch.tensor([1.0, 2.0, 4.0]), discount=0.5)
    tensor([3., 4., 4.])
    """
    _check_share("discount", discount)
    cost = _real(cost, torch.get_default_dtype())
    if not cost.dim():
        raise ValueError("to_go expected costs whose last dimension are the steps, but got a single number.")
    sums = [cost[..., -1]] if cost.shape[-1] else []
    for step in cost[..., :-1].flip(-1).unbind(-1):
        sums.append(step + discount * sums[-1])
    return torch.stack(sums[::-1], -1) if sums else cost


def actor_critic(
    log_prob: Float[Tensor, "*B T"],
    cost: Shaped[Tensor, "..."],
    value: Float[Tensor, "*B T"],
    discount: float = 1.0,
    trace: float = 1.0,
) -> Float[Tensor, "*B T"]:
    """`reinforce` with the generalised advantage of a critic, sum_k (discount trace)^k delta_(t + k), where delta_t =
    c_t + discount V_(t + 1) - V_t (Schulman et al. 2016, equations 10 and 16).

    The steps are the last dimension; after the last nothing more is to be paid. `cost` has one number a step, (*B, T),
    or one at the end, (*B). `value` is what a critic expects to pay from each step on, knowing only what came before
    the step's draw. With a trace of 1 it is a baseline of what is `to_go`: unbiased for the undiscounted sum if the
    discount is 1. A smaller trace or discount trades variance for bias, but for a critic that is exactly right.

    No gradient reaches the cost or the critic; fit it by a term of its own, such as
    `(value - to_go(cost, discount)).square()`. Raises ValueError for shapes that do not fit, or a discount or trace
    outside of 0 to 1.

    >>> log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    >>> value = torch.tensor([2.0, 3.0])
    >>> actor_critic(log_prob, torch.tensor([1.0, 5.0]), value, trace=0.0).sum().backward()
    >>> log_prob.grad                                    # 1 + 3 - 2, and 5 - 3
    tensor([2., 2.])
    """
    _check_share("trace", trace)
    cost = _each_step(_real(cost, log_prob.dtype), log_prob)
    if value.shape != log_prob.shape:
        raise ValueError(
            f"value expected the shape of the log-probability, {tuple(log_prob.shape)}, but got {tuple(value.shape)}."
        )
    later = torch.cat((value[..., 1:], torch.zeros_like(value[..., :1])), -1)
    advantage = to_go(cost + discount * later - value, discount * trace)
    return reinforce(log_prob, advantage)


def enumerate_exactly(positions: Positions, cost: Callable[[Tensor], Float[Tensor, "N *B"]]) -> Float[Tensor, "*B"]:
    """The expected cost, sum_z p(z) cost(z), by going through every event: exact, and differentiable as it stands.

    `cost` maps all N events, (N, *B, ...), to their costs (N, *B); rows of the batch are enumerated side by side, so
    the cost of a row may depend on that row's event alone. Raises TypeError for a distribution that cannot be
    enumerated.

    >>> from regard import OneHot
    >>> positions = OneHot(weights=torch.tensor([[0.25, 0.75]]))
    >>> enumerate_exactly(positions, lambda z: torch.where(z == 0, 4.0, 8.0))
    tensor([7.])
    """
    if not positions.has_enumerate_support:
        raise TypeError(f"enumerate_exactly expected events that can be enumerated, not {type(positions).__name__}.")
    support = positions.enumerate_support()
    probability = positions.log_prob(support).exp()
    return (probability * cost(support).masked_fill(probability == 0, 0)).sum(0)


def variational(cost: Shaped[Tensor, "*B"], posterior: Positions, prior: Positions) -> Float[Tensor, "*B"]:
    """The evidence bound as a cost: E_q[cost] + KL(q || p), for a posterior q that has seen the answer and a prior p
    that has not (Deng et al. 2018, "Latent alignment and variational attention", equation 3).

    With -log p(y | z) for a cost it is never below -log sum_z p(z) p(y | z), and equal to it where q is the true
    posterior. `cost` are those of events drawn from the posterior, with `reinforce` or another estimator beside it;
    or, without any variance, what `enumerate_exactly(posterior, ...)` gives. The divergence is exact and
    differentiable, so the bound's gradient is as unbiased as that of the cost. Raises ValueError for shapes that do
    not fit, and NotImplementedError for two kinds of distribution that have no known divergence.

    >>> from regard import OneHot
    >>> prior, posterior = OneHot(weights=torch.tensor([[0.5, 0.5]])), OneHot(weights=torch.tensor([[0.9, 0.1]]))
    >>> likelihood = torch.tensor([[0.9], [0.1]])
    >>> bound = variational(enumerate_exactly(posterior, lambda z: -likelihood[z, 0].log()), posterior, prior)
    >>> bound, -(likelihood * 0.5).sum().log()           # the posterior is exact here
    (tensor([0.6931]), tensor(0.6931))
    """
    divergence = posterior.kl(prior)
    _check_prefix("cost", cost, divergence, "divergence")
    return cost + _summed(divergence, cost.dim())


def rebar(
    positions: OneHot,
    cost: Callable[[Float[Tensor, "*B Q K"]], Float[Tensor, "*C"]],
    temperature: float = 0.5,
    scale: float | Tensor = 1.0,
) -> Float[Tensor, "*C"]:
    """`relax` with the cost itself, of relaxed places, times `scale` as the control (Tucker et al. 2017, equation 6).
    Unbiased.

    Raises ValueError unless the temperature is positive, and TypeError for anything but places that are one at most.

    >>> from regard import OneHot
    >>> prices = torch.tensor([2.0, 6.0])
    >>> rebar(OneHot(weights=torch.tensor([[0.0, 1.0]])), lambda places: places @ prices)
    tensor([6.])
    """
    return relax(positions, cost, lambda places: scale * cost(places), temperature)


def relax(
    positions: OneHot,
    cost: Callable[[Float[Tensor, "*B Q K"]], Float[Tensor, "*C"]],
    control: Callable[[Float[Tensor, "*B Q K"]], Float[Tensor, "*C"]],
    temperature: float = 0.5,
) -> Float[Tensor, "*C"]:
    """The cost of one draw, whose gradient is (cost(z) - c(u')) d log p(z) + d c(u) - d c(u') (Grathwohl et al. 2018,
    equation 8). Unbiased for any differentiable control c; the better c agrees with the cost, the less the variance.

    `cost` and `control` map places as a 0/1 tensor (*B, Q, K), or relaxed ones, to (*C), a prefix of (*B, Q). u is the
    Gumbel-softmax whose largest place is the draw z, u' another that has the same largest place.

    The gradient is that of the expected cost in the scores; it also trains what the cost of z depends on, but no
    parameter of the control. Those are fitted to the variance, which differentiates the estimate twice:

        (gradient,) = torch.autograd.grad(relax(...).sum(), scores, create_graph=True)
        gradient.square().sum().backward(inputs=list(control.parameters()))

    One evaluation of the cost and four of the control; O(Q K) beside that. Raises ValueError unless the temperature is
    positive, and TypeError for anything but places that are one at most.

    >>> from regard import OneHot
    >>> prices = torch.tensor([2.0, 6.0])
    >>> relax(OneHot(weights=torch.tensor([[0.0, 1.0]])), lambda places: places @ prices, lambda places: places[..., 0])
    tensor([6.])
    """
    if not isinstance(positions, OneHot):
        raise TypeError(f"positions expected a OneHot, at most one place a query, not {type(positions).__name__}.")
    if not temperature > 0:
        raise ValueError(f"temperature expected a number above zero, but got {temperature}.")
    z = positions.sample()
    paid = cost(positions.indicator(z))
    free, given = ((noisy / temperature).softmax(-1)[..., :-1] for noisy in _noisy(positions.log_weights, z))
    at_given = control(given)
    # Less the same of detached places: the value is zero, and so is the gradient in the parameters of the control.
    through = (control(free) - control(free.detach())) - (at_given - control(given.detach()))
    score = _score(positions.log_prob(z), paid.detach() - at_given)
    return paid + through + _summed(score, paid.dim())


def signal_to_noise(gradients: Float[Tensor, "B *D"]) -> Float[Tensor, ""]:
    """How far a mean of gradients stands out of its noise: the norm of the mean over B independent estimates, by the
    standard error of that mean, |m| / sqrt(sum_d var_d / B), where m_d and var_d are the mean and the variance of
    parameter d. Below one, a step that follows the mean is mostly noise.

    The estimates are those of single examples, or of single draws; four times as many double the ratio. It is infinite
    where they all agree, and zero where all are zero. The variance is divided by B - 1, so that it is unbiased. Time
    O(B D). Raises ValueError for fewer than two estimates.

    >>> signal_to_noise(torch.tensor([[3.0, 0.0], [5.0, 0.0]]))
    tensor(4.)
    """
    count = gradients.shape[0] if gradients.dim() else 0
    if count < 2:
        raise ValueError(f"signal_to_noise expected at least 2 estimates in the first dimension, but got {count}.")
    rows = gradients.detach().reshape(count, -1)
    signal, noise = rows.mean(0).norm(), rows.var(0).sum().div(count).sqrt()
    return (signal / noise).where(signal > 0, signal)


def _noisy(log_weights: Float[Tensor, "*B Q places"], z: Int[Tensor, "*B Q"]) -> tuple[Tensor, Tensor]:
    """Two Gumbel-perturbed logarithms of the weights, independent given that z is the largest of both: one is a
    function of the weights at fixed noise, the other at fixed noise and z (Tucker et al. 2017, appendix C)."""
    free = log_weights + (_noisy_given(log_weights, z) - log_weights).nan_to_num(nan=0.0).detach()
    return free, _noisy_given(log_weights, z)


def _noisy_given(log_weights: Tensor, z: Tensor) -> Tensor:
    """Gumbels truncated so that z is the largest: G_z = -log E_z and G_k = -log(E_k / p_k + E_z), E exponential."""
    column = z.remainder(log_weights.shape[-1]).unsqueeze(-1)
    gumbel, possible = gumbel_like(log_weights), log_weights > -INFINITY
    largest = gumbel.take_along_dim(column, -1)
    others = -torch.logaddexp(-gumbel - log_weights.masked_fill(~possible, 0), -largest)
    chosen = torch.zeros_like(possible).scatter(-1, column, True)
    return torch.where(chosen, largest, others.masked_fill(~possible, -INFINITY))


def _check_prefix(name: str, short: Tensor, whole: Tensor, of: str = "log-probability") -> None:
    if short.shape != whole.shape[: short.dim()]:
        raise ValueError(
            f"{name} expected a shape that is a prefix of the {of}'s {tuple(whole.shape)}, "
            f"but got {tuple(short.shape)}."
        )


def _real(cost: Tensor, dtype: torch.dtype) -> Tensor:
    """The costs as they are, or those of integers or bool in this type."""
    return cost if cost.is_floating_point() else cost.to(dtype)


def _trailing(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor with dimensions of one behind, to the rank of the other."""
    return tensor.reshape((*tensor.shape, *(1,) * (other.dim() - tensor.dim())))


def _score(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Zero, with the gradient advantage times d log p."""
    return _trailing(advantage, log_prob) * (log_prob - log_prob.detach())


def _summed(tensor: Tensor, rank: int) -> Tensor:
    """The sum over all but the first `rank` dimensions."""
    return tensor.flatten(rank).sum(-1) if tensor.dim() > rank else tensor


def _each_step(cost: Tensor, log_prob: Tensor) -> Tensor:
    """Costs of each step: as they are, or one at the last step and none before."""
    if cost.dim() == log_prob.dim() - 1:
        _check_prefix("cost", cost, log_prob)
        before = cost.new_zeros(*cost.shape, log_prob.shape[-1] - 1)
        return torch.cat((before, cost.unsqueeze(-1)), -1)
    if cost.shape != log_prob.shape:
        raise ValueError(
            f"cost expected the shape of the log-probability, {tuple(log_prob.shape)}, with or without its last "
            f"dimension, the steps, but got {tuple(cost.shape)}."
        )
    return cost


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} expected a number from 0 to 1, but got {share}.")
