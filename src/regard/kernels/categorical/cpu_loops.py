"""The loops of draws from a softmax and their log-probabilities, for numba: imported when they are first called.

A row of float32 is dealt with at a time, in the nearest cache, and no weights are kept of it.
"""

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import exp32

F, D = np.float32, np.float64
PART = 128
"""Places whose sum in float32 is as good as one in float64; a draw first finds which part it is in."""
LOWEST = F(-87)
"""Below it the exponential is zero in float32."""


@compiled
def largest(row):
    """The largest of a row of floats, NaN aside."""
    best = F(-np.inf)
    for k in range(len(row)):
        best = max(best, row[k])
    return best


@compiled
def power(x):
    """The exponential of what is at most zero; of -inf it is zero."""
    return F(0) if x < LOWEST else exp32(x)


@compiled
def add(row, top, powers, parts):
    """Puts exp(row - top) into `powers`, the sum of each part into `parts`, and gives that of all."""
    total = D(0)
    for part in range(len(parts)):
        some = F(0)
        for k in range(part * PART, min(part * PART + PART, len(row))):
            powers[k] = power(row[k] - top)
            some += powers[k]
        parts[part] = some
        total += some
    return total


@compiled
def place(powers, parts, level):
    """The first place up to which the powers sum to more than the level; the last that has one, where rounding leaves
    none."""
    below, part = D(0), 0
    while part < len(parts) - 1 and below + parts[part] <= level:
        below += parts[part]
        part += 1
    k = part * PART
    below += powers[k]
    while below <= level and k < len(powers) - 1:
        k += 1
        below += powers[k]
    while not powers[k] > 0 and k > 0:
        k -= 1
    return k


@compiled
def draw(first, last, scores, noise, found):
    """The place of each uniform number of rows from first to last."""
    powers, parts = np.empty(scores.shape[1], F), np.empty(-(-scores.shape[1] // PART), D)
    for n in range(first, last):
        row = scores[n]
        top = largest(row)
        if top == -np.inf:
            found[n] = -1
            for k in range(len(row)):
                if np.isnan(row[k]):
                    found[n] = 0
        else:
            total = add(row, top, powers, parts)
            for s in range(noise.shape[1]):
                found[n, s] = place(powers, parts, noise[n, s] * total)


@compiled
def log_probs(first, last, scores, z, out, log_sums):
    """The log-probability of each place of rows from first to last, and the log-sum-exp of each row."""
    powers, parts = np.empty(scores.shape[1], F), np.empty(-(-scores.shape[1] // PART), D)
    for n in range(first, last):
        row = scores[n]
        top = largest(row)
        log_sum = D(top)
        if top > -np.inf:
            log_sum += np.log(add(row, top, powers, parts))
        else:
            for k in range(len(row)):
                log_sum = D(row[k]) if np.isnan(row[k]) else log_sum
        log_sums[n] = log_sum
        blocked = log_sum == -np.inf
        for s in range(z.shape[1]):
            if z[n, s] < 0:
                out[n, s] = F(0) if blocked else F(-np.inf)
            else:
                out[n, s] = F(-np.inf) if blocked else F(D(row[z[n, s]]) - log_sum)


@compiled
def gradients(first, last, grad, scores, z, log_sums, out):
    """The gradients of the scores, the indicator of a place less the weights, of rows from first to last."""
    for n in range(first, last):
        row, of_row, log_sum = scores[n], out[n], F(log_sums[n])
        total = F(0)
        for s in range(z.shape[1]):
            total += grad[n, s] if z[n, s] >= 0 else F(0)
        if log_sum == -np.inf:
            of_row[:] = F(0)
            continue
        for k in range(len(row)):
            of_row[k] = -total * power(row[k] - log_sum)
        for s in range(z.shape[1]):
            if z[n, s] >= 0:
                of_row[z[n, s]] += grad[n, s]
