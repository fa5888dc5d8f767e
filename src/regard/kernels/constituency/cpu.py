"""The sums over binary trees on the CPU, by loops over the spans: time O(K^3)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import constituency


def refuses(part: Any, scores: Tensor, *given: object) -> str | None:
    """Other types than float32 and float64, or no words."""
    if scores.dtype not in (torch.float32, torch.float64):
        return "it takes float32 or float64"
    return None if scores.numel() > 0 else "there is nothing to do"


def run(part: Any, scores: Tensor, present: Tensor) -> Tensor:
    """Log Z (*B) or the marginals (*B, K, K)."""
    *batch, words, _ = scores.shape
    out = _MADE[part](scores.reshape(-1, words, words).contiguous(), present.reshape(-1, words).contiguous())
    return out.view((*batch, *out.shape[1:]))


def _log_z_shape(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    return scores.new_empty(len(scores)), torch.empty_like(scores)


def _slopes(grad: Tensor, scores: Tensor, present: Tensor, log_z: Tensor, marginals: Tensor) -> tuple[Tensor]:
    return (grad[:, None, None] * marginals,)


def _marginals(scores: Tensor, present: Tensor) -> Tensor:
    return _sums(scores, present)[1]


def _marginals_shape(scores: Tensor, present: Tensor) -> Tensor:
    return torch.empty_like(scores)


def _second_slopes(grad: Tensor, scores: Tensor, present: Tensor, out: Tensor) -> tuple[Tensor]:
    return (_along(grad, scores, present),)


def _scores_shape(grad: Tensor, scores: Tensor, *given: Tensor) -> tuple[Tensor]:
    return (torch.empty_like(scores),)


def _sums(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Log Z and the marginals, of rows that are not sure by the plain road."""
    from regard.kernels.constituency import cpu_loops

    log_z, out = scores.new_empty(len(scores), dtype=torch.float64), torch.empty_like(scores, dtype=torch.float64)
    given = scores.double(), present
    unsure = _unsure(cpu_loops.sums, given, (log_z, out))
    if len(unsure):
        log_z[unsure], out[unsure] = on_cpu.apart(_plain_sums, *(each[unsure] for each in given))
    return log_z.to(scores.dtype), out.to(scores.dtype)


def _along(grad: Tensor, scores: Tensor, present: Tensor) -> Tensor:
    """The second derivative applied to the gradient."""
    from regard.kernels.constituency import cpu_loops

    out = torch.empty_like(scores, dtype=torch.float64)
    given = grad.double(), scores.double(), present
    unsure = _unsure(cpu_loops.along, given, (out,))
    if len(unsure):
        out[unsure] = on_cpu.apart(_plain_along, *(each[unsure] for each in given))
    return out.to(scores.dtype)


def _unsure(kernel: Callable[..., None], given: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> Tensor:
    """Runs the kernel, and gives the rows that it was not sure of."""
    sure = torch.empty(len(out[0]), dtype=torch.bool)
    arrays = [each.numpy() for each in (*given, sure, *out)]
    on_cpu.run(kernel, [(*block, *arrays) for block in on_cpu.blocks(len(sure))])
    return (~sure).nonzero().squeeze(-1)


def _plain_sums(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.requires_grad_()
    log_z = constituency.plain_log_partition(scores, present)
    return log_z.detach(), torch.autograd.grad(log_z.sum(), scores)[0]


def _plain_along(grad: Tensor, scores: Tensor, present: Tensor) -> Tensor:
    scores = scores.requires_grad_()
    return torch.autograd.grad(constituency.plain_marginals(scores, present), scores, grad)[0]


_MADE = {
    constituency.log_partition: differentiable(
        "constituency_log_partition",
        _sums,
        _slopes,
        (_log_z_shape, _scores_shape),
        constituency.plain_log_partition,
    ),
    constituency.marginals: differentiable(
        "constituency_marginals",
        _marginals,
        _second_slopes,
        (_marginals_shape, _scores_shape),
        constituency.plain_marginals,
    ),
}

for _part in _MADE:
    register_road((_part,), "cpu", Road(run, refuses, exports=_part is constituency.marginals))
