"""What makes a differentiable function of PyTorch out of a kernel."""

from collections.abc import Callable
from functools import partial, wraps
from inspect import signature
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.nn import Parameter

from regard.kernels.registry import is_transformed

PLAIN = frozenset((Tensor, Parameter, NoneType))
"""What a kernel computes with directly."""


def differentiable(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    fakes: tuple[Callable[..., Any], Callable[..., Any]],
    plain: Callable[..., Any],
    outputs: int = 1,
) -> Callable[..., Any]:
    """A function of tensors by two kernels: `forward(*inputs)` gives the output, `backward(grad, *inputs, output)` the
    gradients of the inputs.

    The forward may give a tuple, of which the first is the output and the backward gets all. Of several `outputs`, the
    first so many, the function and the plain road give a tuple, and the backward gets as many gradients. Inputs that
    have no gradient, such as a mask, which may be None, stand last.

    Both become ops of their own, which torch.compile takes as they are; `fakes` are the same two functions for tensors
    without data. Otherwise the kernels are called directly: an op takes longer than a small one. A backward that builds
    a graph, or is of many gradients at once, takes the plain road, `plain(*inputs)`.

    Raises ValueError if there is an op of this name.
    """
    forward_op, backward_op = _op(name, forward, fakes[0]), _op(f"{name}_backward", backward, fakes[1])
    count = len(signature(forward).parameters)

    def computed(*inputs: Tensor | None) -> tuple[Tensor, ...]:
        out = (forward_op if _is_traced(inputs) else forward)(*_alone(inputs))
        return out if isinstance(out, tuple) else (out,)

    class Fast(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor | None) -> tuple[Tensor, ...]:
            output = computed(*inputs)  # setup_context would have each call look up its signature
            ctx.mark_non_differentiable(*output[outputs:])
            ctx.set_materialize_grads(outputs > 1)  # or what is saved would get zeros as its gradient
            ctx.save_for_backward(*inputs, *output)
            return output

        @staticmethod
        def backward(ctx: Any, *slopes: Any) -> Any:
            saved, slopes = ctx.saved_tensors, slopes[:outputs]
            if slopes[0] is None:  # nothing that was asked for depends on it
                return (None,) * count
            if _is_plain(slopes):
                return _plain_gradients(plain, saved[:count], slopes)
            given = *[each.contiguous() for each in slopes], *saved
            grads = (backward_op if _is_traced(given) else backward)(*_alone(given))
            return *grads, *(None,) * (count - len(grads))

    def fast(*inputs: Tensor | None) -> Any:
        wanted = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in inputs)
        found = (Fast.apply if wanted else computed)(*inputs)
        return found[0] if outputs == 1 else found[:outputs]

    Fast.__name__ = name
    return fast


def discrete(name: str, kernel: Callable[..., Tensor], fake: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of tensors whose answer is of integers, and so has no gradient, by a kernel for the CPU.

    The kernel is given tensors on the CPU, which do not require a gradient, and perhaps numbers after them; each tensor
    begins with the same number of rows, and so does its answer. `fake` is the same function for tensors without data.
    It is an op of its own, which torch.compile, torch.export and vmap take as it is, but called directly where it can
    be. The answer is where the first tensor is. Raises ValueError if there is an op of this name.
    """

    @wraps(kernel)
    def on_cpu(*given: Any) -> Tensor:
        return kernel(*(each.cpu() if isinstance(each, Tensor) else each for each in given)).to(given[0].device)

    op = _op(name, on_cpu, fake, vmap=True)

    def found(*given: Any) -> Tensor:
        tensors = tuple(each for each in given if isinstance(each, Tensor))
        call = op if _is_traced(tensors) or is_transformed() else on_cpu
        return call(*(each.detach() if isinstance(each, Tensor) else each for each in given))

    return found


def _op(name: str, kernel: Callable[..., Any], fake: Callable[..., Any], vmap: bool = False) -> Callable[..., Any]:
    """The kernel as an op of PyTorch, `torch.ops.regard.NAME`."""
    if hasattr(torch.ops.regard, name):
        raise ValueError(f"name expected one that no kernel has, but there is an op regard::{name} already.")
    op = torch.library.custom_op(f"regard::{name}", kernel, mutates_args=())
    op.register_fake(fake)
    if vmap:
        op.register_vmap(partial(_rows_together, op))
    return getattr(torch.ops.regard, name)


def _rows_together(op: Callable[..., Tensor], info: Any, dims: tuple[int | None, ...], *given: Any) -> tuple:
    """The op of a batch of calls: the rows of all of them are one call's."""

    def rows(each: Any, dim: int | None) -> Any:
        if not isinstance(each, Tensor):
            return each
        each = each.expand(info.batch_size, *each.shape) if dim is None else each.movedim(dim, 0)
        return each.flatten(0, 1)

    out = op(*map(rows, given, dims))
    return out.unflatten(0, (info.batch_size, len(out) // info.batch_size)), 0


def _is_traced(given: tuple[Tensor | None, ...]) -> bool:
    """Whether this is compiled, or computed with tensors that only look like some."""
    return torch.compiler.is_compiling() or not PLAIN.issuperset(map(type, given))


def _is_plain(slopes: tuple[Tensor, ...]) -> bool:
    """Whether a backward builds a graph, or is of many gradients at once."""
    return is_transformed() or (
        not torch.compiler.is_compiling() and (torch.is_grad_enabled() or any(map(is_legacy_batchedtensor, slopes)))
    )


def _alone(given: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    return [each.detach() if each is not None and each.requires_grad else each for each in given]


def _plain_gradients(plain: Callable[..., Any], inputs: tuple, slopes: tuple) -> tuple[Tensor | None, ...]:
    """The gradients as functions that can be differentiated again."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        views = [None if each is None else each.view_as(each) for each in inputs]  # apart, if one comes of another
        found = plain(*views)
        out = found if isinstance(found, tuple) else (found,)
    wanted = [each for each in views if each is not None and each.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, slopes, create_graph=graph))
    return tuple(next(found) if each is not None and each.requires_grad else None for each in views)
