"""The loops of a GRU over its steps, float32, for numba: imported when they are first called.

A step's rows are units and its columns examples, which are what the processor does at a time. They release the
interpreter's lock and take one thread.
"""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numba
import numpy as np

F = np.float32
ONE, HALF = F(1), F(0.5)
EDGE = F(7.90531110763549805)  # the tangent is one from here on, to the last bit
FAST = {"contract", "reassoc", "arcp", "nsz"}  # NaN and infinity stay what they are


def _compiled(function: Callable) -> Any:
    """The function as numba compiles it when it is first called, or as it lies in the cache on the disk."""
    function = unwrap(function)  # or numba would compile the shape checks that tests put round every function
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**options)(function)


@_compiled
def tanh(x):
    """The hyperbolic tangent as the quotient of an odd and an even polynomial, within 4e-7."""
    x = EDGE if x > EDGE else x  # this way round NaN stays NaN
    x = -EDGE if x < -EDGE else x
    y = x * x
    odd = y * F(-2.76076847742355e-16) + F(2.00018790482477e-13)
    odd = y * odd + F(-8.60467152213735e-11)
    odd = y * odd + F(5.12229709037114e-08)
    odd = y * odd + F(1.48572235717979e-05)
    odd = y * odd + F(6.37261928875436e-04)
    odd = y * odd + F(4.89352455891786e-03)
    even = y * F(1.19825839466702e-06) + F(1.18534705686654e-04)
    even = y * even + F(2.26843463243900e-03)
    even = y * even + F(4.89352518554385e-03)
    return x * odd / even


@_compiled
def add_product(weight, columns, out):
    """out += weight columns, two rows of the weight at a time and four of the columns: both multiples of these."""
    rows, inner, examples = weight.shape[0], weight.shape[1], columns.shape[1]
    for j in range(0, rows, 2):
        w, v, of_w, of_v = weight[j], weight[j + 1], out[j], out[j + 1]
        for k in range(0, inner, 4):
            w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
            v0, v1, v2, v3 = v[k], v[k + 1], v[k + 2], v[k + 3]
            c0, c1, c2, c3 = columns[k], columns[k + 1], columns[k + 2], columns[k + 3]
            for b in range(examples):
                of_w[b] += w0 * c0[b] + w1 * c1[b] + w2 * c2[b] + w3 * c3[b]
                of_v[b] += v0 * c0[b] + v1 * c1[b] + v2 * c2[b] + v3 * c3[b]


@_compiled
def forwards(given, weight, bias, states, kept):
    """The states (T + 1, H, B) after the first, from what words give to the gates (T, 3H, B) and from W h + b, which
    are the gates reset and update and the new state; kept (T, 4H, B) are these three, and the new state's W h + b."""
    steps, examples, units = given.shape[0], given.shape[2], given.shape[1] // 3
    product = np.empty((3 * units, examples), np.float32)
    for t in range(steps):
        word, before, after, keep = given[t], states[t], states[t + 1], kept[t]
        for j in range(3 * units):
            product[j, :] = bias[j]
        add_product(weight, before, product)
        for j in range(units):
            word_r, word_z, word_n = word[j], word[units + j], word[2 * units + j]
            own_r, own_z, own_n = product[j], product[units + j], product[2 * units + j]
            keep_r, keep_z, keep_n, keep_own = keep[j], keep[units + j], keep[2 * units + j], keep[3 * units + j]
            old, state = before[j], after[j]
            for b in range(examples):
                r = HALF * tanh(HALF * (word_r[b] + own_r[b])) + HALF
                z = HALF * tanh(HALF * (word_z[b] + own_z[b])) + HALF
                n = tanh(word_n[b] + r * own_n[b])
                keep_r[b], keep_z[b], keep_n[b], keep_own[b] = r, z, n, own_n[b]
                state[b] = n + z * (old[b] - n)


@_compiled
def backwards(grad, transposed, states, kept, of_own, of_new):
    """The gradients of W h + b of each step (T, 3H, B), and of what words give to the new state (T, H, B): to the
    gates they are the same."""
    steps, units, examples = grad.shape
    carried = np.zeros((units, examples), np.float32)
    for t in range(steps - 1, -1, -1):
        g, before, keep, own, new = grad[t], states[t], kept[t], of_own[t], of_new[t]
        for j in range(units):
            keep_r, keep_z, keep_n, keep_own = keep[j], keep[units + j], keep[2 * units + j], keep[3 * units + j]
            own_r, own_z, own_n = own[j], own[units + j], own[2 * units + j]
            old, into, given, of_n = before[j], carried[j], g[j], new[j]
            for b in range(examples):
                r, z, n, slope = keep_r[b], keep_z[b], keep_n[b], into[b] + given[b]
                inner = slope * (ONE - z) * (ONE - n * n)
                of_n[b], own_n[b] = inner, inner * r
                own_r[b] = inner * keep_own[b] * r * (ONE - r)
                own_z[b] = slope * (old[b] - n) * z * (ONE - z)
                into[b] = slope * z
        add_product(transposed, own, carried)
