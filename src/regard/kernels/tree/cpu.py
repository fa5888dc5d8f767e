"""The sums over dependency trees on the CPU, by loops over the spans or over the words: time O(K^3)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import trees


def refuses(part: Any, scores: Tensor, *given: object) -> str | None:
    """Other types than float32 and float64, or no words."""
    if scores.dtype not in (torch.float32, torch.float64):
        return "it takes float32 or float64"
    return None if scores.numel() > 0 else "there is nothing to do"


def run(part: Any, scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> Tensor:
    """Log Z (*B) or the marginals (*B, K, K)."""
    *batch, words, _ = scores.shape
    rows = scores.reshape(-1, words, words).contiguous(), present.reshape(-1, words).contiguous()
    out = _MADE[part](*rows, torch.tensor([projective, single_root]))
    return out.view((*batch, *out.shape[1:]))


def _log_z(scores: Tensor, present: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    return _sums(scores, present, *kind.tolist())


def _log_z_shape(scores: Tensor, present: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    return scores.new_empty(len(scores)), torch.empty_like(scores)


def _slopes(
    grad: Tensor, scores: Tensor, present: Tensor, kind: Tensor, log_z: Tensor, marginals: Tensor
) -> tuple[Tensor]:
    return (grad[:, None, None] * marginals,)


def _marginals(scores: Tensor, present: Tensor, kind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The marginals; and for their derivative the same in float64, and the exponentials of the scores."""
    exps, common = _exps(scores, present)
    _, exact = _sums_in_full(scores, exps, common, present, *kind.tolist())
    return exact.to(scores.dtype, copy=True), exact, exps


def _marginals_shape(scores: Tensor, present: Tensor, kind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.empty_like(scores, dtype=torch.float64)
    return torch.empty_like(scores), exact, torch.empty_like(exact)


def _second_slopes(
    grad: Tensor, scores: Tensor, present: Tensor, kind: Tensor, out: Tensor, exact: Tensor, exps: Tensor
) -> tuple[Tensor]:
    return (_along(grad.double(), scores, exps, exact, present, *kind.tolist()).to(scores.dtype),)


def _scores_shape(grad: Tensor, scores: Tensor, *given: Tensor) -> tuple[Tensor]:
    return (torch.empty_like(scores),)


def _sums(scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> tuple[Tensor, Tensor]:
    """Log Z and the marginals, in the type of the scores."""
    log_z, out = _sums_in_full(scores, *_exps(scores, present), present, projective, single_root)
    return log_z.to(scores.dtype), out.to(scores.dtype)


def _sums_in_full(scores: Tensor, exps: Tensor, common: Tensor, present: Tensor, *kind: bool) -> tuple[Tensor, Tensor]:
    """The same in float64, of rows that are not sure by the plain road."""
    from regard.kernels.tree import cpu_loops

    log_z, out = torch.empty_like(common), torch.empty_like(exps)
    unsure = _unsure(cpu_loops.sums, (exps, common, present, *kind), (log_z, out))
    if len(unsure):
        log_z[unsure], out[unsure] = on_cpu.apart(_plain_sums, scores[unsure].double(), present[unsure], *kind)
    return log_z, out


def _along(grad: Tensor, scores: Tensor, exps: Tensor, marginals: Tensor, present: Tensor, *kind: bool) -> Tensor:
    """The second derivative applied to the gradient, in float64."""
    from regard.kernels.tree import cpu_loops

    out = torch.empty_like(exps)
    unsure = _unsure(cpu_loops.along, (grad, exps, marginals, present, *kind), (out,))
    if len(unsure):
        given = grad[unsure], scores[unsure].double(), present[unsure]
        out[unsure] = on_cpu.apart(_plain_along, *given, *kind)
    return out


def _exps(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The exponentials of the scores of words that are present, less each word's best, in float64; and the sum of what
    was taken from them."""
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    scores = scores.double().masked_fill(~both, -torch.inf)
    best = scores.amax(-1)
    return (scores - best.unsqueeze(-1)).exp(), best.where(present, 0.0).sum(-1)


def _unsure(kernel: Callable[..., None], given: tuple, out: tuple[Tensor, ...]) -> Tensor:
    """Runs the kernel, and gives the rows that it was not sure of."""
    sure = torch.empty(len(out[0]), dtype=torch.bool)
    arrays = [each.numpy() if isinstance(each, Tensor) else each for each in (*given, sure, *out)]
    on_cpu.run(kernel, [(*block, *arrays) for block in on_cpu.blocks(len(sure))])
    return (~sure).nonzero().squeeze(-1)


def _plain_sums(scores: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    scores = scores.requires_grad_()
    log_z = trees.plain_log_partition(scores, *given)
    return log_z.detach(), torch.autograd.grad(log_z.sum(), scores)[0]


def _plain_along(grad: Tensor, scores: Tensor, *given: Any) -> Tensor:
    scores = scores.requires_grad_()
    return torch.autograd.grad(trees.plain_marginals(scores, *given), scores, grad)[0]


def _plain_log_z(scores: Tensor, present: Tensor, kind: Tensor) -> Tensor:
    return trees.plain_log_partition(scores, present, *kind.tolist())


def _plain_marginals(scores: Tensor, present: Tensor, kind: Tensor) -> Tensor:
    return trees.plain_marginals(scores, present, *kind.tolist())


_MADE = {
    trees.log_partition: differentiable(
        "tree_log_partition", _log_z, _slopes, (_log_z_shape, _scores_shape), _plain_log_z
    ),
    trees.marginals: differentiable(
        "tree_marginals", _marginals, _second_slopes, (_marginals_shape, _scores_shape), _plain_marginals
    ),
}

for _part in _MADE:
    register_road((_part,), "cpu", Road(run, refuses, exports=_part is trees.marginals))
