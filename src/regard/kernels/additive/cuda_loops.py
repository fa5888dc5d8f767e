"""The loops of additive attention, for Triton: imported when they are first called.

Tiles are queries by keys by hidden units, in float32 whatever the arguments are, and with t = tanh(q + k) all is made
of r = 1 / (1 + exp(2 (q + k))): t is 1 - 2 r and its slope 4 r (1 - r). The exponential of the sum is the product of
two exponentials, which a tile takes once for each query and once for each key, and the reciprocal is a squared inverse
root, as a division is seven instructions: so the units for special functions, which are what there is least of, answer
once a tangent. Both exponentials must be finite, which `narrow` says for each row of the batch.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def exponential(x):
    """exp(x) to the last bits for |x| up to 80: the hardware's own loses one with every doubling of x."""
    shifted = x * 1.4426950408889634 + 12582912.0  # 1.5 * 2^23, so that its last bits are the nearest whole number
    whole = shifted - 12582912.0
    power = ((shifted.to(tl.int32, bitcast=True) << 23) + (127 << 23)).to(tl.float32, bitcast=True)
    return power * tl.exp((x - whole * 0.693359375) + whole * 2.12194440e-4)


@triton.jit
def reciprocals(query, keys, FACTORS: tl.constexpr):
    """1 / (1 + exp(2 (q + k))) of tiles (BQ, BH) and (BK, BH)."""
    if FACTORS:
        powers = exponential(2 * query)[:, None, :] * exponential(2 * keys)[None, :, :]
    else:
        powers = tl.exp2(2.8853900817779268 * (query[:, None, :] + keys[None, :, :]))
    root = tl.rsqrt(1 + powers)
    return root * root


@triton.jit
def tile(start, rows, columns, row_stride, column_stride, height, width):
    """A tile of a matrix in float32, zero outside of it."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    places = rows.to(tl.int64)[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride
    return tl.load(start + places, mask=inside, other=0).to(tl.float32)


@triton.jit
def product(left, right, PRECISION: tl.constexpr):
    """The matrix product; of a single row, which tensor cores do not take, by hand."""
    if left.shape[0] == 1:
        return tl.sum(tl.trans(left) * right, 0)[None, :]
    return tl.dot(left, right, input_precision=PRECISION)


@triton.jit
def scores(
    query, keys, energy, rows, places, query_rows, query_columns, key_rows, key_columns,
    queries, count, hidden, FACTORS: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """sum_h v_h tanh(q_h + k_h), (BQ, BK)."""
    total = tl.zeros((BQ, BK, BH), tl.float32)
    for first in range(0, hidden, BH):
        units = first + tl.arange(0, BH)
        asked = tile(query, rows, units, query_rows, query_columns, queries, hidden)
        key = tile(keys, places, units, key_rows, key_columns, count, hidden)
        weight = tl.load(energy + units, mask=units < hidden, other=0).to(tl.float32)
        total += weight[None, None, :] * (1 - 2 * reciprocals(asked, key, FACTORS))
    return tl.sum(total, 2)


@triton.jit
def masked_scores(
    query, keys, energy, mask, narrow, rows, places, query_rows, query_columns, key_rows, key_columns,
    mask_rows, mask_columns, queries, period, count, hidden,
    MASKED: tl.constexpr, FACTORS: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """The scores (BQ, BK), -inf where nothing may be looked at."""
    factors = False
    if FACTORS:
        factors = tl.load(narrow) != 0
    if factors:
        total = scores(
            query, keys, energy, rows, places, query_rows, query_columns, key_rows, key_columns,
            queries, count, hidden, True, BQ, BK, BH,
        )  # fmt: skip
    else:
        total = scores(
            query, keys, energy, rows, places, query_rows, query_columns, key_rows, key_columns,
            queries, count, hidden, False, BQ, BK, BH,
        )  # fmt: skip
    seen = (rows < queries)[:, None] & (places < count)[None, :]
    if MASKED:
        seen = seen & (tile(mask, rows % period, places, mask_rows, mask_columns, period, count) != 0)
    return tl.where(seen, total, -INFINITY)


@triton.jit
def contexts(
    query, keys, energy, values, mask, narrow, out, logs,
    query_batch, query_rows, query_columns, key_batch, key_rows, key_columns,
    value_batch, value_rows, value_columns, mask_outer, mask_inner, mask_rows, mask_columns,
    queries, period, count, hidden, width, inner,
    MASKED: tl.constexpr, FACTORS: tl.constexpr, PRECISION: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """The contexts of BQ queries and the logarithms of their softmax's sums, +inf where nothing may be looked at."""
    blocks = tl.cdiv(queries, BQ)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    rows = tl.program_id(0) % blocks * BQ + tl.arange(0, BQ)
    columns = tl.arange(0, BV)
    best = tl.full((BQ,), -INFINITY, tl.float32)
    total = tl.zeros((BQ,), tl.float32)
    context = tl.zeros((BQ, BV), tl.float32)
    for first in range(0, count, BK):
        places = first + tl.arange(0, BK)
        found = masked_scores(
            query + n * query_batch, keys + n * key_batch, energy,
            mask + n // inner * mask_outer + n % inner * mask_inner, narrow + n, rows, places,
            query_rows, query_columns, key_rows, key_columns, mask_rows, mask_columns,
            queries, period, count, hidden, MASKED, FACTORS, BQ, BK, BH,
        )  # fmt: skip
        better = tl.maximum(best, tl.max(found, 1))
        shift = tl.where(better == -INFINITY, 0.0, better)
        weights = tl.exp(found - shift[:, None])
        kept = tl.exp(best - shift)
        value = tile(values + n * value_batch, places, columns, value_rows, value_columns, count, width)
        total = total * kept + tl.sum(weights, 1)
        context = context * kept[:, None] + product(weights, value, PRECISION)
        best = better
    nothing = total == 0
    total = tl.where(nothing, 1.0, total)
    whole = n * queries + rows
    tl.store(logs + whole, tl.where(nothing, INFINITY, best + tl.log(total)), mask=rows < queries)
    inside = (rows < queries)[:, None] & (columns < width)[None, :]
    tl.store(out + whole[:, None] * width + columns[None, :], context / total[:, None], mask=inside)


@triton.jit
def slopes(
    grad, context, logs, query, keys, energy, values, mask, narrow, weights, out,
    query_batch, query_rows, query_columns, key_batch, key_rows, key_columns,
    value_batch, value_rows, value_columns, mask_outer, mask_inner, mask_rows, mask_columns,
    start, chunk, queries, period, count, hidden, width, inner,
    MASKED: tl.constexpr, FACTORS: tl.constexpr, PRECISION: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """The weights of BQ queries from `start` on at BK places, and the gradients of the scores there."""
    across, down = tl.cdiv(count, BK), tl.cdiv(chunk, BQ)
    n = (tl.program_id(0) // (across * down)).to(tl.int64)
    own = tl.program_id(0) // across % down * BQ + tl.arange(0, BQ)
    rows = tl.where(own < chunk, start + own, queries)
    places = tl.program_id(0) % across * BK + tl.arange(0, BK)
    found = masked_scores(
        query + n * query_batch, keys + n * key_batch, energy,
        mask + n // inner * mask_outer + n % inner * mask_inner, narrow + n, rows, places,
        query_rows, query_columns, key_rows, key_columns, mask_rows, mask_columns,
        queries, period, count, hidden, MASKED, FACTORS, BQ, BK, BH,
    )  # fmt: skip
    weight = tl.exp(found - tl.load(logs + n * queries + rows, mask=rows < queries, other=0)[:, None])
    of_weights = tl.zeros((BQ, BK), tl.float32)
    mean = tl.zeros((BQ,), tl.float32)
    for first in range(0, width, BV):
        columns = first + tl.arange(0, BV)
        slope = tile(grad + n * queries * width, rows, columns, width, 1, queries, width)
        value = tile(values + n * value_batch, places, columns, value_rows, value_columns, count, width)
        of_weights += product(slope, tl.trans(value), PRECISION)
        mean += tl.sum(slope * tile(context + n * queries * width, rows, columns, width, 1, queries, width), 1)
    inside = (own < chunk)[:, None] & (places < count)[None, :]
    whole = (n * chunk + own)[:, None] * count + places[None, :]
    tl.store(weights + whole, weight, mask=inside)
    tl.store(out + whole, weight * (of_weights - mean[:, None]), mask=inside)


@triton.jit
def summed(
    slopes, query, keys, rows, units, slope_rows, slope_columns, query_rows, query_columns, key_rows, key_columns,
    queries, count, hidden, FACTORS: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """sum_k slope (1 - t^2) / 4 and sum_k slope t, (BQ, BH)."""
    asked = tile(query, rows, units, query_rows, query_columns, queries, hidden)
    of_query = tl.zeros((BQ, BK, BH), tl.float32)
    of_energy = tl.zeros((BQ, BK, BH), tl.float32)
    for first in range(0, count, BK):
        places = first + tl.arange(0, BK)
        slope = tile(slopes, rows, places, slope_rows, slope_columns, queries, count)[:, :, None]
        key = tile(keys, places, units, key_rows, key_columns, count, hidden)
        found = reciprocals(asked, key, FACTORS)
        of_query += slope * (found - found * found)
        of_energy += slope * (1 - 2 * found)
    return tl.sum(of_query, 1), tl.sum(of_energy, 1)


@triton.jit
def gradients(
    slopes, query, keys, energy, narrow, of_query, of_energy,
    slope_batch, slope_rows, slope_columns, query_batch, query_rows, query_columns, key_batch, key_rows, key_columns,
    out_batch, queries, count, hidden,
    ENERGY: tl.constexpr, FACTORS: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Adds the gradients of BQ queries at BH hidden units, and stores the part of the energy's gradient that they
    make. The gradients of keys are the same with keys and queries exchanged."""
    across, down = tl.cdiv(hidden, BH), tl.cdiv(queries, BQ)
    n = (tl.program_id(0) // (across * down)).to(tl.int64)
    rows = tl.program_id(0) // across % down * BQ + tl.arange(0, BQ)
    units = tl.program_id(0) % across * BH + tl.arange(0, BH)
    factors = False
    if FACTORS:
        factors = tl.load(narrow + n) != 0
    if factors:
        inner, outer = summed(
            slopes + n * slope_batch, query + n * query_batch, keys + n * key_batch, rows, units,
            slope_rows, slope_columns, query_rows, query_columns, key_rows, key_columns,
            queries, count, hidden, True, BQ, BK, BH,
        )  # fmt: skip
    else:
        inner, outer = summed(
            slopes + n * slope_batch, query + n * query_batch, keys + n * key_batch, rows, units,
            slope_rows, slope_columns, query_rows, query_columns, key_rows, key_columns,
            queries, count, hidden, False, BQ, BK, BH,
        )  # fmt: skip
    weight = tl.load(energy + units, mask=units < hidden, other=0).to(tl.float32)
    inside = (rows < queries)[:, None] & (units < hidden)[None, :]
    whole = of_query + n * out_batch + rows.to(tl.int64)[:, None] * hidden + units[None, :]
    tl.store(whole, tl.load(whole, mask=inside, other=0) + 4 * weight[None, :] * inner, mask=inside)
    if ENERGY:
        part = of_energy + (tl.program_id(0) // across).to(tl.int64) * hidden + units
        tl.store(part, tl.sum(outer, 0), mask=units < hidden)
