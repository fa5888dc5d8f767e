"""Learning rates over the steps of a training."""

import math

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
