"""The sums over dependency trees on the CPU, by loops over the spans or over the words: time O(K^3)."""

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.kernels import cpu
from saccade.kernels.op import differentiable
from saccade.kernels.registry import Road, is_transformed, register_road
from saccade.positions import trees

Made = Callable[[Tensor, Tensor], Tensor]


def suits(part: object, scores: Tensor, *given: object) -> bool:
    """In float32 or float64."""
    return scores.dtype in (torch.float32, torch.float64) and scores.numel() > 0 and not is_transformed()


def run(part: object, scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> Tensor:
    """Log Z (*B) or the marginals (*B, K, K)."""
    *batch, words, _ = scores.shape
    rows = scores.reshape(-1, words, words).contiguous(), present.reshape(-1, words).contiguous()
    out = _MADE[part, projective, single_root](*rows)
    return out.view((*batch, *out.shape[1:]))


def _made_log_partition(projective: bool, single_root: bool) -> Made:
    def forward(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        return _sums(scores, present, projective, single_root)

    def backward(grad: Tensor, scores: Tensor, present: Tensor, log_z: Tensor, marginals: Tensor) -> tuple[Tensor]:
        return (grad[:, None, None] * marginals,)

    def plain(scores: Tensor, present: Tensor) -> Tensor:
        return trees.plain_log_partition(scores, present, projective, single_root)

    shapes = lambda scores, present: (scores.new_empty(len(scores)), torch.empty_like(scores)), _scores_shape
    return differentiable(_name("log_partition", projective, single_root), forward, backward, shapes, plain)


def _made_marginals(projective: bool, single_root: bool) -> Made:
    def forward(scores: Tensor, present: Tensor) -> Tensor:
        return _sums(scores, present, projective, single_root)[1]

    def backward(grad: Tensor, scores: Tensor, present: Tensor, out: Tensor) -> tuple[Tensor]:
        return (_along(grad, scores, present, projective, single_root),)

    def plain(scores: Tensor, present: Tensor) -> Tensor:
        return trees.plain_marginals(scores, present, projective, single_root)

    shapes = lambda scores, present: torch.empty_like(scores), _scores_shape
    return differentiable(_name("marginals", projective, single_root), forward, backward, shapes, plain)


def _name(what: str, projective: bool, single_root: bool) -> str:
    return f"tree_{what}{'_projective' if projective else ''}{'_single_root' if single_root else ''}"


def _scores_shape(grad: Tensor, scores: Tensor, *given: Tensor) -> tuple[Tensor]:
    return (torch.empty_like(scores),)


def _sums(scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> tuple[Tensor, Tensor]:
    """Log Z and the marginals, of rows that are not sure by the plain road."""
    from saccade.kernels import tree_loops

    log_z, out = scores.new_empty(len(scores), dtype=torch.float64), torch.empty_like(scores, dtype=torch.float64)
    given = scores.double(), present, projective, single_root
    unsure = _unsure(tree_loops.sums, given, (log_z, out))
    if len(unsure):
        log_z[unsure], out[unsure] = cpu.apart(_plain_sums, given[0][unsure], present[unsure], *given[2:])
    return log_z.to(scores.dtype), out.to(scores.dtype)


def _along(grad: Tensor, scores: Tensor, present: Tensor, projective: bool, single_root: bool) -> Tensor:
    """The second derivative applied to the gradient."""
    from saccade.kernels import tree_loops

    out = torch.empty_like(scores, dtype=torch.float64)
    given = grad.double(), scores.double(), present, projective, single_root
    unsure = _unsure(tree_loops.along, given, (out,))
    if len(unsure):
        out[unsure] = cpu.apart(_plain_along, *(each[unsure] for each in given[:3]), *given[3:])
    return out.to(scores.dtype)


def _unsure(kernel: Callable[..., None], given: tuple, out: tuple[Tensor, ...]) -> Tensor:
    """Runs the kernel, and gives the rows that it was not sure of."""
    sure = torch.empty(len(out[0]), dtype=torch.bool)
    arrays = [each.numpy() if isinstance(each, Tensor) else each for each in (*given, sure, *out)]
    cpu.run(kernel, [(*block, *arrays) for block in cpu.blocks(len(sure))])
    return (~sure).nonzero().squeeze(-1)


def _plain_sums(scores: Tensor, *given: object) -> tuple[Tensor, Tensor]:
    scores = scores.requires_grad_()
    log_z = trees.plain_log_partition(scores, *given)
    return log_z.detach(), torch.autograd.grad(log_z.sum(), scores)[0]


def _plain_along(grad: Tensor, scores: Tensor, *given: object) -> Tensor:
    scores = scores.requires_grad_()
    return torch.autograd.grad(trees.plain_marginals(scores, *given), scores, grad)[0]


_KINDS = {trees.log_partition: _made_log_partition, trees.marginals: _made_marginals}
_SHAPES = [(projective, single_root) for projective in (False, True) for single_root in (False, True)]
_MADE = {(part, *shape): made(*shape) for part, made in _KINDS.items() for shape in _SHAPES}

for _part in _KINDS:
    register_road((_part,), "cpu", Road(suits, run))
