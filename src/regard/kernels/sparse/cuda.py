"""Sparsemax and entmax on CUDA, a kernel for the weights and one for their gradient: each reads and writes a row once.

Time O(K) a step of Newton's method, of which there are 16.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cuda
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.over.sparse import _weights, entmax_weights
from regard.positions.algorithms.categorical import unblock

LARGEST = 1 << 15
"""The most places, as a program holds all of its row."""


def refuses(function: Callable, scores: Tensor, alpha: float | Tensor) -> str | None:
    """Rows that do not fit, other types than float32 or less, an alpha that is a tensor, or one of softmax, which
    PyTorch has."""
    if isinstance(alpha, Tensor) or not 1 < alpha <= 2:  # above 2 the edge of the support is too steep
        return "it takes a number alpha above 1, up to 2"
    if scores.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return "it takes float32, bfloat16 and float16"
    if scores.numel() == 0:
        return "there is nothing to do"
    return None if scores.shape[-1] <= LARGEST else f"a row has more than {LARGEST} places"


def run(function: Callable, scores: Tensor, alpha: float) -> Tensor:
    """The weights (*B, K)."""
    weights = _entmax(scores.reshape(-1, scores.shape[-1]), torch.tensor(alpha, dtype=torch.float64))
    return weights.reshape(scores.shape)


def _plain(scores: Tensor, alpha: Tensor) -> Tensor:
    unblocked, blocked = unblock(scores)
    return _weights(unblocked.float(), alpha.item()).to(scores.dtype).masked_fill(blocked, 0)


def _forward(scores: Tensor, alpha: Tensor) -> Tensor:
    from regard.kernels.sparse import cuda_loops as loops

    out, order, (rows, places) = _shape(scores, alpha), alpha.item(), scores.shape
    scores = scores if scores.stride(-1) == 1 else scores.contiguous()
    programs, options = _tiles(rows, places, order)
    sizes = rows, places, scores.stride(0), order
    on_cuda.run(loops.weights, programs, scores, out, *sizes, **options)
    return out


def _shape(scores: Tensor, alpha: Tensor) -> Tensor:
    return scores.new_empty(scores.shape)


def _backward(grad: Tensor, scores: Tensor, alpha: Tensor, weights: Tensor) -> tuple[Tensor]:
    from regard.kernels.sparse import cuda_loops as loops

    out, order, (rows, places) = _shape(scores, alpha), alpha.item(), scores.shape
    programs, options = _tiles(rows, places, order)
    on_cuda.run(loops.gradients, programs, grad, weights, out, rows, places, grad.stride(0), order, **options)
    return (out,)


def _shapes(grad: Tensor, scores: Tensor, alpha: Tensor, weights: Tensor) -> tuple[Tensor]:
    return (_shape(scores, alpha),)


def _tiles(rows: int, places: int, alpha: float) -> tuple[int, dict[str, Any]]:
    """The number of programs, and how one is made: some rows where they are short, many threads where they are long."""
    block = max(16, 1 << (places - 1).bit_length())
    some = max(1, 1024 // block)
    kind = {1.5: "entmax15", 2.0: "sparsemax"}.get(alpha, "entmax")
    options = dict(KIND=kind, ROWS=some, BLOCK=block, num_warps=min(32, max(4, block // 512)))
    return -(-rows // some), options


_entmax = differentiable("entmax", _forward, _backward, (_shape, _shapes), _plain)
if find_spec("triton"):
    register_road((entmax_weights,), "cuda", Road(run, refuses))
