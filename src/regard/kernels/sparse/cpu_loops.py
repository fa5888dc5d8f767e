"""The loops of the sparse weights, for numba: imported when they are first called.

A row of float32 is dealt with at a time, in the nearest cache. Few places have weight, and Newton's method, from below,
says soon which cannot: the others are moved together, to a multiple of LANES, and it goes on with these alone.
"""

import math
from inspect import unwrap
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from regard.kernels.on_cpu import FAST, compiled

F, D = np.float32, np.float64
LANES = 32
PART = 128
"""Places whose sum in float32 is as good as one in float64, on any processor."""
CLOSE = 2e-7
"""The step of Newton's method, relative to tau, after which none is made."""
MOST = 50
"""Steps for any row; rows of 16,000 places that were made to be slow took 12."""

INLINE: Any = {"fastmath": FAST, "error_model": "numpy", "forceinline": True}


def inlined(function):
    """The function as part of those that call it, which thereby vectorise."""
    return njit(**INLINE)(unwrap(function))


def _bits(typing, number):
    """The bits of a float, as an integer."""
    kind, word = (types.int32, ir.IntType(32)) if number == types.float32 else (types.int64, ir.IntType(64))
    return kind(number), lambda _, builder, __, args: builder.bitcast(args[0], word)


def _of_bits(typing, number):
    """The float of these bits."""
    kind, real = (types.float32, ir.FloatType()) if number == types.int32 else (types.float64, ir.DoubleType())
    return kind(number), lambda _, builder, __, args: builder.bitcast(args[0], real)


bits: Any = intrinsic(_bits)
of_bits: Any = intrinsic(_of_bits)


@inlined
def log64(x):
    """The natural logarithm of a normal float64, within 1e-12, near one relative to it."""
    power = np.int32((bits(x) - 0x3FE6A09E667F3BCD) >> 52)  # of two, where mantissas begin at the root of a half
    f = of_bits(bits(x) - (np.int64(power) << 52)) - 1
    s = f / (f + 2)
    y = s * s
    series = 1 / 3 + y * (1 / 5 + y * (1 / 7 + y * (1 / 9 + y * (1 / 11 + y * (1 / 13 + y / 15)))))
    return power * 0.6931471805599453 + 2 * s * (1 + y * series)


@inlined
def exp64(x):
    """The exponential within 1e-13, relative to it, as far as float64 goes."""
    x = 709.0 if x > 709.0 else x
    x = -708.0 if x < -708.0 else x
    half = 0.5 if x > 0 else -0.5
    power = np.int32(x * 1.4426950408889634 + half)
    r = x - power * 0.6931471805599453
    y = 1 / 40320 + r * (1 / 362880 + r * (1 / 3628800 + r / 39916800))
    y = 1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * y))
    y = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * y))))
    return y * of_bits((np.int64(power) + 1023) << 52)


@inlined
def log32(x):
    """The same of a float32, within 1e-7."""
    power = np.int32(np.int32(bits(x) - np.int32(0x3F3504F3)) >> np.int32(23))
    f = of_bits(np.int32(bits(x) - np.int32(power << np.int32(23)))) - F(1)
    s = f / (f + F(2))
    y = s * s
    series = F(1 / 3) + y * (F(1 / 5) + y * (F(1 / 7) + y * F(1 / 9)))
    return F(power) * F(0.6931471805599453) + F(2) * s * (F(1) + y * series)


@inlined
def exp32(x):
    """The same in float32, within 2e-7."""
    x = F(88) if x > F(88) else x
    x = F(-87) if x < F(-87) else x
    half = F(0.5) if x > F(0) else F(-0.5)
    power = np.int32(x * F(1.4426950408889634) + half)
    r = x - F(power) * F(0.6931471805599453)
    y = F(1 / 24) + r * (F(1 / 120) + r * F(1 / 720))
    y = F(1) + r * (F(1) + r * (F(1 / 2) + r * (F(1 / 6) + r * y)))
    return y * of_bits(np.int32(np.int32(power + np.int32(127)) << np.int32(23)))


def log(x):
    """The natural logarithm of a normal float."""


def exp(x):
    """The exponential of a float."""


@overload(log, jit_options=INLINE)
def _log(x):
    return (lambda x: log32(x)) if x == types.float32 else (lambda x: log64(x))


@overload(exp, jit_options=INLINE)
def _exp(x):
    return (lambda x: exp32(x)) if x == types.float32 else (lambda x: exp64(x))


@compiled
def order(bits):
    """Bits of a float32 to integers of the same order, and back."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def largest(row):
    """The largest of a row of floats, given and returned as bits; NaN counts as more than all."""
    best = np.int32(-0x80000000)
    for k in range(len(row)):
        best = max(best, order(row[k]))
    return order(best)


@compiled
def candidates(row, edge, kept):
    """Moves what lies above the edge, and NaN, to the front of `kept`: how many, filled up to a multiple of LANES."""
    count = 0
    for k in range(len(row)):
        kept[count] = row[k]
        count += not row[k] <= edge
    return filled(kept, count)


@compiled
def filled(kept, count):
    """The next multiple of LANES, up to which nothing has weight."""
    full = -(-count // LANES) * LANES
    kept[count:full] = -2
    return full


@compiled
def sparsemax_step(scores, tau):
    """What Newton's method adds to a tau below the one at which sum_k [s_k - tau]_+ is one."""
    total, count = 0.0, 0.0
    for k in range(len(scores)):
        over = scores[k] - tau
        over = 0.0 if over <= 0 else over
        total += over
        count += D(over > 0)
    return (total - 1) / count


@compiled
def entmax15_step(scores, tau):
    """The same for the norm of [s_k - tau]_+."""
    total, square = 0.0, 0.0
    for k in range(len(scores)):
        over = scores[k] - tau
        over = 0.0 if over <= 0 else over
        total += over
        square += over * over
    return (square - math.sqrt(square)) / total


@compiled
def sparsemax(row, kept):
    """Makes weights of scores whose largest is zero."""
    tau = sparsemax_step(row, -1.0) - 1
    few = kept[: candidates(row, F(tau), kept)]
    for _ in range(MOST):
        step = sparsemax_step(few, tau)
        tau += step
        if not step > -CLOSE * tau:
            break
    level = F(tau)
    for k in range(len(row)):
        over = row[k] - level
        row[k] = F(0) if over <= 0 else over


@compiled
def entmax15(row, kept):
    """The same at alpha 1.5."""
    for k in range(len(row)):
        row[k] *= F(0.5)
    tau = entmax15_step(row, -1.0) - 1
    few = kept[: candidates(row, F(tau), kept)]
    for _ in range(MOST):
        step = entmax15_step(few, tau)
        tau += step
        if not step > -CLOSE * tau:
            break
    level = F(tau)
    for k in range(len(row)):
        over = row[k] - level
        over = F(0) if over <= 0 else over
        row[k] = over * over


@compiled
def gather(row, scale, edge, kept, where):
    """Moves what lies above the edge when scaled, and NaN, to the front of `kept`, and its place to that of `where`:
    how many."""
    count = 0
    for k in range(len(row)):
        number = scale * row[k]
        kept[count] = number
        where[count] = k
        count += not number <= edge
    return count


@compiled
def narrow(kept, where, edge):
    """Drops those of the gathered that do not lie above the edge."""
    count = 0
    for j in range(len(kept)):
        number, place = kept[j], where[j]
        kept[count] = number
        where[count] = place
        count += not number <= edge
    return count


@compiled
def powers(scores, tau, exponent, out):
    """[s - tau]_+ to the power, but one where that is of zero."""
    one = out.dtype.type(1)
    for j in range(len(out)):
        over = scores[j] - tau
        out[j] = exp(exponent * log(one if over <= 0 else over))


@compiled
def sums(scores, tau, powers):
    """Those of the weights, and of their slopes: of a part in their own type, of the parts in float64."""
    zero = powers.dtype.type(0)
    total, slope = 0.0, 0.0
    for first in range(0, len(powers), PART):
        some, some_slope = zero, zero
        for j in range(first, min(first + PART, len(powers))):
            over = scores[j] - tau
            over = zero if over <= 0 else over
            some += over * powers[j]
            some_slope += powers[j] if over > 0 else zero
        total += some
        slope += some_slope
    return total, slope


@compiled
def entmax(row, beyond, kept, raised, where):
    """The same at any alpha but one, beyond being alpha - 1: [beyond s_k - tau]_+^(1 / beyond).

    The norm is convex if beyond is at most one, so that Newton's method stays below tau. Else it is kept between what
    is known to be too low and too high. The last step is made in the weights, to the first order.
    """
    real = kept.dtype.type
    tau, exponent, step = real(-1), real(1 / beyond - 1), real(0)
    low, high, close = -1.0, -(float(len(row)) ** -beyond), closeness(beyond)
    count = gather(row, beyond, tau, kept, where)
    for number in range(MOST):
        full = filled(kept, count)
        powers(kept, tau, exponent, raised[:full])
        total, slope = sums(kept, tau, raised[:full])
        step = real((total - exp((1 - beyond) * log(D(total)))) / slope)
        if not abs(total - 1) > close or tau + step == tau:
            break
        low, high = (tau, high) if total > 1 else (low, tau)
        tau += step
        if beyond <= 1 and number < 2:
            count = narrow(kept[:count], where[:count], tau - real(1e-6))
        elif beyond > 1 and not low < tau < high:
            tau = real(-math.sqrt(low * high))
    step = step / real(beyond)
    row[:] = F(step * 0)  # NaN if there was one
    for j in range(count):
        over = kept[j] - tau
        over = F(0) if over <= 0 else raised[j] * (over - step)
        row[where[j]] = F(0) if over <= 0 else over


@compiled
def closeness(beyond):
    """How far from one the sum may be before a last step of Newton's method; beyond 1 / 2 weights end abruptly."""
    return 2e-4 if beyond <= 0.5 else 2e-6 if is_narrow(beyond) else 1e-9


@compiled
def is_narrow(beyond):
    """Whether powers in float32 are exact enough."""
    return 0.09 <= beyond < 1


@compiled
def weights(first, last, scores, bits, alpha, out):
    """The weights of rows from first to last, given the scores as they are and as bits, and an alpha for each row or
    one for all."""
    places = scores.shape[1] + LANES
    kept, raised = np.empty(places, np.float32), np.empty(places, np.float32)
    wide, high = np.empty(places, np.float64), np.empty(places, np.float64)
    where = np.empty(places, np.int64)
    best = np.empty(1, np.int32)
    for number in range(first, last):
        beyond, row = alpha[number % len(alpha)] - 1, out[number]
        best[0] = largest(bits[number])
        top = best.view(np.float32)[0]
        for k in range(len(row)):
            row[k] = scores[number, k] - top
        if top == -np.inf:
            row[:] = F(0)
        elif not beyond >= 0:
            row[:] = F(np.nan)
        elif beyond == 1:
            sparsemax(row, kept)
        elif beyond == 0.5:
            entmax15(row, kept)
        elif is_narrow(beyond):
            entmax(row, beyond, kept, raised, where)
        else:
            entmax(row, max(beyond, 1e-7), wide, high, where)


@compiled
def gradients(first, last, grad, weights, alpha, of_scores, of_alpha):
    """The gradients of the same rows; those of alpha where there is room for them."""
    places = grad.shape[1] + LANES
    kept, raised = np.empty(places, np.float32), np.empty(places, np.float32)
    wide, high = np.empty(places, np.float64), np.empty(places, np.float64)
    where = np.empty(places, np.int64)
    for number in range(first, last):
        beyond, row = alpha[number % len(alpha)] - 1, of_scores[number]
        if beyond == 1:
            sparsemax_slopes(weights[number], row)
        elif beyond == 0.5:
            entmax15_slopes(weights[number], row)
        elif is_narrow(beyond):
            entmax_slopes(weights[number], 1 - beyond, kept, raised, where, row)
        else:
            entmax_slopes(weights[number], 1 - beyond, wide, high, where, row)
        project(grad[number], row)
        if len(of_alpha):
            of_alpha[number] = slope_of_alpha(grad[number], weights[number], beyond)


@compiled
def sparsemax_slopes(weights, out):
    """p^(2 - alpha) on the support."""
    for k in range(len(out)):
        out[k] = F(1) if weights[k] > 0 else weights[k]


@compiled
def entmax15_slopes(weights, out):
    """The same at alpha 1.5."""
    for k in range(len(out)):
        out[k] = np.sqrt(weights[k])


@compiled
def entmax_slopes(weights, exponent, kept, raised, where, out):
    """The same at any alpha."""
    real = kept.dtype.type
    count = gather(weights, 1, 0, kept, where)
    powers(kept, real(0), real(exponent), raised[:count])
    out[:] = F(0)
    for j in range(count):
        out[where[j]] = raised[j] if kept[j] > 0 else kept[j]


@compiled
def project(grad, slopes):
    """Makes q (g - sum(q g) / sum(q)) of the slopes q."""
    total, along = 0.0, 0.0
    for k in range(len(grad)):
        q = D(slopes[k])
        total += q
        along += 0.0 if q == 0 else q * D(grad[k])
    mean = F(0) if total == 0 else F(along / total)
    for k in range(len(grad)):
        q = slopes[k]
        slopes[k] = F(0) if q == 0 else q * (grad[k] - mean)


@compiled
def slope_of_alpha(grad, weights, beyond):
    """The derivative of the weights by alpha times the gradient: that of Correia et al. 2019 (proposition 1), written
    without the differences that vanish near alpha one.

    With h = -log p and e = (p^(1 - alpha) - 1 - (alpha - 1) h) / (alpha - 1)^2, the derivative of p_k is
    p_k [E (1 + (alpha - 1) h_k) - e_k (1 + (alpha - 1) H)] / sum(q), H and E being the means of h and e.
    """
    mean_h, mean_e, along, along_h, along_e = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(len(grad)):
        if weights[k] != 0:
            p, g = D(weights[k]), D(grad[k])
            h = -math.log(p)
            x = beyond * h
            near = 1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x / 5040))))
            e = h * h * (near if x < 0.01 else (math.exp(x) - 1 - x) / (x * x))
            mean_h += p * h
            mean_e += p * e
            along += p * g
            along_h += p * g * h
            along_e += p * g * e
    total = 1 + beyond * (mean_h + beyond * mean_e)
    return (mean_e * (along + beyond * along_h) - along_e * (1 + beyond * mean_h)) / total
