"""The loops of hard reads, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.categorical.cpu_loops import PART, D, F, add, largest, place, power
from regard.kernels.on_cpu import compiled


@compiled
def choose(first, last, scores, noise, z, log_prob, log_sums):
    """Of rows from first to last, the place of a uniform number, or the best where there is none; its log-probability;
    and the log-sum-exp of the row."""
    powers, parts = np.empty(scores.shape[1], F), np.empty(-(-scores.shape[1] // PART), D)
    for n in range(first, last):
        row = scores[n]
        top = largest(row)
        total = add(row, top, powers, parts)
        log_sums[n] = D(top) + np.log(total)
        if not total > 0:  # nowhere, or NaN
            log_sums[n] = D(np.sum(row))
            z[n] = -1
            log_prob[n] = F(0) if log_sums[n] == -np.inf else F(np.nan)
        elif len(noise) > 0:
            z[n] = place(powers, parts, noise[n] * total)
        else:
            z[n] = 0
            while row[z[n]] != top:
                z[n] += 1
        if z[n] >= 0:
            log_prob[n] = F(D(row[z[n]]) - log_sums[n])


@compiled
def slopes(first, last, grad, z, log_sums, scores):
    """Puts the gradients of the scores in their place, the indicator of z less the weights, of rows from first to
    last."""
    for n in range(first, last):
        row, of, log_sum = scores[n], grad[n], F(log_sums[n])
        if of == F(0) or log_sum == -np.inf:
            row[:] = F(0)
            continue
        for k in range(len(row)):
            row[k] = -of * power(row[k] - log_sum)
        if z[n] >= 0:
            row[z[n]] += of
