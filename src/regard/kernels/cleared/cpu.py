"""Places that nobody may look at, set to zero on the CPU by their bits: `masked_fill` takes many times as long for a
mask that all values of a place share."""

import torch
from torch import Tensor

from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.masks import cleared, plain_cleared

BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
SMALLEST = 1 << 12
"""Values below which the plain road is as fast."""


def refuses(function: object, rows: Tensor, hidden: Tensor) -> str | None:
    """Types without bits of their own, or too little to do."""
    if rows.dtype not in BITS:
        return "it takes float64, float32, bfloat16 and float16"
    return None if rows.numel() >= SMALLEST else f"below {SMALLEST} values the plain road is as fast"


def run(function: object, rows: Tensor, hidden: Tensor) -> Tensor:
    """The rows (*B, K, D)."""
    return _cleared(rows, hidden)


def _forward(rows: Tensor, hidden: Tensor) -> Tensor:
    bits = BITS[rows.dtype]
    return (rows.contiguous().view(bits) & -(~hidden).to(bits)).view(rows.dtype)


def _backward(grad: Tensor, rows: Tensor, hidden: Tensor, out: Tensor) -> tuple[Tensor]:
    return (_forward(grad, hidden),)


_cleared = differentiable(
    "cleared",
    _forward,
    _backward,
    (lambda rows, hidden: rows.new_empty(rows.shape), lambda grad, *_: (grad.new_empty(grad.shape),)),
    plain_cleared,
)
register_road((cleared,), "cpu", Road(run, refuses))
