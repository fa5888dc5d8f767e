"""(scaled_dot, softmax, mean) by PyTorch's scaled_dot_product_attention: time O(Q K D), memory O(Q D) forward."""

import math
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level
from torch.nn.functional import scaled_dot_product_attention

from saccade.kernels.registry import Road, register_road
from saccade.over import softmax
from saccade.reads import mean
from saccade.scores import scaled_dot


def suits(query: Tensor, keys: Tensor, values: Any, mask: Tensor | None) -> bool:
    """Tensors of one dtype, outside of torch.func's transforms, for which the fused op has no rule."""
    return (
        isinstance(values, Tensor)
        and query.dtype == keys.dtype == values.dtype
        and (torch.compiler.is_compiling() or maybe_current_level() is None)
    )


def run(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """The context, from PyTorch's own dispatcher."""
    if query.dim() == keys.dim() == 4:
        return _differentiable_twice(query, keys, values, mask)
    batch = query.shape[:-2]
    query4, keys4, values4 = (_four(each, batch) for each in (query, keys, values))
    context = _differentiable_twice(query4, keys4, values4, None if mask is None else _four(mask, batch))
    return context.view(*query.shape[:-1], values.shape[-1])


def _four(tensor: Tensor, batch: torch.Size) -> Tensor:
    """The tensor with two batch dimensions: with fewer or more the dispatcher takes a slower way."""
    tensor = tensor.expand(*batch, *tensor.shape[-2:])
    return tensor.reshape(math.prod(batch[:-1]), batch[-1] if batch else 1, *tensor.shape[-2:])


def _differentiable_twice(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """The fused op; a backward that builds a graph puts the plain road's gradients in place of the op's own, which
    PyTorch cannot differentiate."""
    context = scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    node = context.grad_fn
    if node is None or torch.compiler.is_compiling() or not node.name().startswith("ScaledDotProduct"):
        return context

    def plain_gradients(fused, grads):
        if not torch.is_grad_enabled():
            return None
        inputs = [each for each in (query, keys, values) if each.requires_grad]
        plain = mean(softmax(scaled_dot(query, keys), mask), values)[0]
        wanted = iter(torch.autograd.grad(plain, inputs, grads[0], create_graph=True))
        return tuple(None if grad is None else next(wanted) for grad in fused)

    node.register_hook(plain_gradients)
    return context


for device in ("cpu", "cuda"):
    register_road(scaled_dot, softmax, mean, device, Road(suits, run))
