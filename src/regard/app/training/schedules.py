"""Learning rates over the steps of a training."""

import math
from collections.abc import Iterable
from typing import Any

import torch


def warmup_cosine(optimiser: torch.optim.Optimizer, steps: int, warmup: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A rate that rises evenly over the first `warmup` steps to that of the optimiser, and then falls to zero by a
    cosine, (1 + cos(pi t / T)) / 2 at the t-th of the T steps after them (Loshchilov and Hutter 2017, "SGDR: Stochastic
    Gradient Descent with Warm Restarts", equation 5, without restarts).

    >>> adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.01)
    >>> warmup_cosine(adam, steps=100, warmup=10).get_last_lr()
    [0.001]
    """
    warmup = max(1, warmup)
    cooling = max(1, steps - warmup)

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * min(1, (step - warmup) / cooling))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimiser, share)


def adam(
    parameters: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
    learning_rate: float,
    steps: int,
    betas: tuple[float, float] = (0.9, 0.999),
    rising: int = 10,
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LambdaLR]:
    """Adam (Kingma and Ba 2015), and its rate: one part in `rising` of the steps it rises, then it falls to zero by a
    cosine, as in `warmup_cosine`.

    >>> _, rate = adam([torch.zeros(1, requires_grad=True)], learning_rate=0.01, steps=100)
    >>> rate.get_last_lr()
    [0.001]
    """
    optimiser = torch.optim.Adam(parameters, learning_rate, betas=betas, fused=True)
    return optimiser, warmup_cosine(optimiser, steps, warmup=steps // rising)


def clipped(optimiser: torch.optim.Adam, largest: float) -> torch.optim.Adam:
    """The optimiser, which makes the norm of all gradients together at most `largest` before each of its steps.

    >>> weight = torch.zeros(1, requires_grad=True)
    >>> optimiser = clipped(torch.optim.Adam([weight]), largest=1.0)
    >>> weight.grad = torch.tensor([5.0])
    >>> optimiser.step()
    >>> weight.grad
    tensor([1.0000])
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]

    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, largest)

    optimiser.register_step_pre_hook(clip)
    return optimiser
