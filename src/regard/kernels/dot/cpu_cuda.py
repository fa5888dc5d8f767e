"""(scaled_dot, dot, Bilinear or Cosine, softmax, mean) by PyTorch's scaled_dot_product_attention: time O(Q K D), memory
O(Q D) forward where its fused kernels take the sizes. What a score prepared, such as keys of length one, is used as it
is.

Trained in bfloat16 on a CPU, with fewer than 512 keys, it computes in float32: in bfloat16 the fused op and its
backward take almost twice as long (`regard bench scaled_dot`).

A query of NaN reads zero where PyTorch's fused op does so; the plain road, and `set_detect_anomaly`, show it.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from regard.kernels.registry import Road, register_road
from regard.over.mappings import softmax
from regard.reads import Read, mean
from regard.scores import Bilinear, Cosine, dot, scaled_dot

FEW = 512
"""Keys from which on the two take about as long in training."""
MANY, WIDE = 16_384, 64
"""One query over so many keys, of fewer numbers, is no faster than the plain road."""


def refuses(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """Values that are no tensor, or several dtypes."""
    if not isinstance(values, Tensor):
        return "the values are no tensor"
    return None if query.dtype == keys.dtype == values.dtype else "query, keys and values have several dtypes"


def refuses_all(
    score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Any, mask: Tensor | None
) -> str | None:
    """The same, and one query over many narrow keys."""
    if query.shape[-2] == 1 and keys.shape[-2] >= MANY and keys.shape[-1] < WIDE and query.device.type == "cpu":
        return f"one query over {MANY} keys or more, of less than {WIDE} numbers, is as fast by the plain road"
    return refuses(score, over, read, query, keys, values, mask)


def run(score: Any, over: Any, read: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Read:
    """The context, from PyTorch's own dispatcher."""
    scale = 1 / math.sqrt(query.shape[-1]) if score is scaled_dot else 1.0
    query = score.sharpened(query) if type(score) is Cosine else query
    if _is_slow(query, keys, values):
        with torch.autocast("cpu", enabled=False):
            context = _fused(query.float(), keys.float(), values.float(), mask, scale)
        return context.to(query.dtype), None, None
    return _fused(query, keys, values, mask, scale), None, None


def _is_slow(query: Tensor, keys: Tensor, values: Tensor) -> bool:
    if query.dtype is not torch.bfloat16 or query.device.type != "cpu" or keys.shape[-2] >= FEW:
        return False
    return torch.is_grad_enabled() and any(each.requires_grad for each in (query, keys, values))


def _fused(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    if query.dim() == keys.dim() == 4:
        return _differentiable_twice(query, keys, values, mask, scale)
    batch = query.shape[:-2]
    query4, keys4, values4 = (_four(each, batch) for each in (query, keys, values))
    mask4 = None if mask is None else _four(mask, batch)
    context = _differentiable_twice(query4, keys4, values4, mask4, scale)
    return context.view(*query.shape[:-1], values.shape[-1])


def _four(tensor: Tensor, batch: torch.Size) -> Tensor:
    """The tensor with two batch dimensions: with fewer or more the dispatcher takes a slower way."""
    tensor = tensor.expand(*batch, *tensor.shape[-2:])
    return tensor.reshape(math.prod(batch[:-1]), batch[-1] if batch else 1, *tensor.shape[-2:])


def _differentiable_twice(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The fused op; a backward that builds a graph puts the plain road's gradients in place of the op's own, which
    PyTorch cannot differentiate."""
    context = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    node = None if torch.compiler.is_compiling() else context.grad_fn
    if node is None or not node.name().startswith("ScaledDotProduct"):
        return context

    def plain_gradients(fused, grads):
        if not torch.is_grad_enabled():
            return None
        views = [each.view_as(each) for each in (query, keys, values)]  # apart, though one may come of another
        plain = mean(softmax(dot(views[0] * scale, views[1]), mask), views[2])[0]
        wanted = [number for number, grad in enumerate(fused[:3]) if grad is not None]
        found = torch.autograd.grad(plain, [views[number] for number in wanted], grads[0], create_graph=True)
        ours = dict(zip(wanted, found, strict=True))
        return tuple(ours.get(number) for number in range(len(fused)))

    node.register_hook(plain_gradients)
    return context


for score in (scaled_dot, dot, Bilinear, Cosine):
    for device in ("cpu", "cuda"):
        register_road((score, softmax, mean), device, Road(run, refuses_all))
