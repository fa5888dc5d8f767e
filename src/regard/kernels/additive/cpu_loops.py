"""The loops of the additive score, float32, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.on_cpu import compiled

F = np.float32
EDGE = F(7.90531110763549805)  # the tangent is one from here on, to the last bit


@compiled
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


@compiled
def scores(first, last, query, keys, energy, out):
    """out[n, q, k] = sum_h energy[h] tanh(query[n, q, h] + keys[n, k, h]) for rows n K + k from first to last."""
    places, queries, hidden = keys.shape[1], query.shape[1], query.shape[2]
    for row in range(first, last):
        n, k = row // places, row % places
        key = keys[n, k]
        for q in range(queries):
            asked = query[n, q]
            total = F(0)
            for h in range(hidden):
                total += energy[h] * tanh(asked[h] + key[h])
            out[n, q, k] = total


@compiled
def gradients(first, last, grad, query, keys, energy, of_query, of_keys, of_energy):
    """The gradients of the same rows: those of the query and of the energy, in float64, are added to what is there."""
    places, queries, hidden = keys.shape[1], query.shape[1], query.shape[2]
    shared = np.empty(hidden, np.float32)
    for row in range(first, last):
        n, k = row // places, row % places
        key, of_key = keys[n, k], of_keys[n, k]
        for h in range(hidden):
            of_key[h] = shared[h] = F(0)
        for q in range(queries):
            slope = grad[n, q, k]
            if slope != 0:  # where nothing was looked at nothing is learned
                asked, of_asked = query[n, q], of_query[n, q]
                for h in range(hidden):
                    t = tanh(asked[h] + key[h])
                    shared[h] += slope * t
                    inner = slope * energy[h] * (F(1) - t * t)
                    of_asked[h] += inner
                    of_key[h] += inner
        for h in range(hidden):
            of_energy[h] += shared[h]
