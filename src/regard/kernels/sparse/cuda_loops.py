"""The loops of the sparse mappings for Triton: imported when they are first called.

A program holds some whole rows in registers, in float32. The weights are p = m [1 + (a - 1) (s - max s) / m^(a - 1)]_+
to the power of 1 / (a - 1), and m, the largest, is sought as in `sparse.py`.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

INFINITY = tl.constexpr(float("inf"))
STEPS = tl.constexpr(16)


@triton.jit
def log1p(x):
    """log(1 + x), without what the sum loses."""
    whole = 1 + x
    return tl.log(whole) + (x - (whole - 1)) / whole


@triton.jit
def powers(below, largest, alpha, KIND: tl.constexpr):
    """The weights and their powers 2 - alpha; at alpha 1.5 and 2 `largest` is the power a - 1 of the largest weight,
    and `below` a - 1 times what a score is below the best, otherwise both are as they are, the first a logarithm."""
    if KIND == "sparsemax":
        weights = tl.maximum(below + largest[:, None], 0.0)
        slopes = tl.where(weights > 0, 1.0, 0.0)
    elif KIND == "entmax15":
        slopes = tl.maximum(below + largest[:, None], 0.0)
        weights = slopes * slopes
    else:
        scaled = (alpha - 1) * below * tl.exp(tl.minimum((1 - alpha) * largest, 44.0))[:, None]
        inside = scaled > -1
        logs = largest[:, None] + log1p(tl.where(inside, scaled, 0.0)) / (alpha - 1)
        weights = tl.where(inside, tl.exp(logs), 0.0)
        slopes = tl.where(inside, tl.exp((2 - alpha) * logs), 0.0)
    return weights, slopes


@triton.jit
def newton(below, largest, alpha, KIND: tl.constexpr):
    """One step of Newton's method for (sum_k p_k)^(alpha - 1) = 1."""
    weights, slopes = powers(below, largest, alpha, KIND)
    total, slope = tl.sum(weights, 1), tl.sum(slopes, 1)
    if KIND == "sparsemax":
        largest -= (total - 1) / slope
    elif KIND == "entmax15":
        largest -= (tl.sqrt(total) - 1) * tl.sqrt(total) / slope
    else:
        logs = tl.log(total)
        part = (alpha - 1) * logs
        grown = tl.where(tl.abs(part) < 0.01, part * (1 + part / 2 * (1 + part / 3)), tl.exp(part) - 1)
        excess = tl.exp((2 - alpha) * logs) * grown / slope
        largest += log1p(-excess * tl.exp((1 - alpha) * largest)) / (alpha - 1)
    return largest


@triton.jit
def weights(
    scores, out, batch, places, row_stride, alpha,
    KIND: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The weights of ROWS rows."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (rows < batch)[:, None] & (columns < places)[None, :]
    found = tl.load(scores + rows[:, None] * row_stride + columns[None, :], mask=inside, other=-INFINITY)
    found = found.to(tl.float32)
    best = tl.max(found, 1)
    blocked = best == -INFINITY
    below = found - tl.where(blocked, 0.0, best)[:, None]
    wrong = tl.max(tl.where(below != below, 1, 0), 1) != 0
    below = tl.where(below == below, tl.maximum(below, -2 / (alpha - 1)), 0.0)
    below = tl.where(inside, below, -2 / (alpha - 1))
    below = tl.where(blocked[:, None], 0.0, below)  # as if all were equal, until the end
    if KIND == "sparsemax":
        largest = tl.full((ROWS,), 1.0, tl.float32)
    elif KIND == "entmax15":
        below = below / 2
        largest = tl.full((ROWS,), 1.0, tl.float32)
    else:
        largest = tl.zeros((ROWS,), tl.float32)
    for _ in range(STEPS):
        largest = newton(below, largest, alpha, KIND)
    weight = powers(below, largest, alpha, KIND)[0]
    weight = tl.where(wrong[:, None], float("nan"), tl.where(blocked[:, None], 0.0, weight))
    tl.store(out + rows[:, None] * places + columns[None, :], weight, mask=inside)


@triton.jit
def gradients(
    grad, weights, out, batch, places, grad_stride, alpha,
    KIND: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """q (g - sum q g / sum q) with q = p^(2 - alpha), the gradient of the scores of ROWS rows."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (rows < batch)[:, None] & (columns < places)[None, :]
    weight = tl.load(weights + rows[:, None] * places + columns[None, :], mask=inside, other=0).to(tl.float32)
    slope = tl.load(grad + rows[:, None] * grad_stride + columns[None, :], mask=inside, other=0).to(tl.float32)
    if KIND == "sparsemax":
        share = tl.where(weight > 0, 1.0, weight)  # NaN stays
    elif KIND == "entmax15":
        share = tl.sqrt(weight)
    else:
        share = tl.where(weight == 0, 0.0, tl.exp((2 - alpha) * tl.log(tl.where(weight == 0, 1.0, weight))))
    total = tl.sum(share, 1)
    mean = tl.sum(tl.where(share == 0, 0.0, share * slope), 1) / tl.where(total == 0, 1.0, total)
    found = tl.where(share == 0, 0.0, share * (slope - mean[:, None]))
    tl.store(out + rows[:, None] * places + columns[None, :], found, mask=inside)
