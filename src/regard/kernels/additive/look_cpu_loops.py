"""The loops of one look by the additive score, float32, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.additive.cpu_loops import F, tanh
from regard.kernels.on_cpu import compiled


@compiled
def contexts(first, last, query, keys, energy, values, mask, out, weights):
    """out[n] = sum_k weights[n, k] values[n, k], these a softmax over the k in the mask of energy . tanh(query + key);
    for rows n from first to last."""
    places, hidden, width = keys.shape[1], keys.shape[2], values.shape[2]
    for n in range(first, last):
        asked, context, weight = query[n], out[n], weights[n]
        top = F(-np.inf)
        for k in range(places):
            weight[k] = F(-np.inf)
            if mask[n, k]:
                key, total = keys[n, k], F(0)
                for h in range(hidden):
                    total += energy[h] * tanh(asked[h] + key[h])
                weight[k] = total
                top = total if total > top else top
        norm = F(0)
        for k in range(places):
            weight[k] = np.exp(weight[k] - top) if mask[n, k] else F(0)
            norm += weight[k]
        for v in range(width):
            context[v] = F(0)
        for k in range(places):
            if weight[k] != 0:
                weight[k] /= norm
                share, value = weight[k], values[n, k]
                for v in range(width):
                    context[v] += share * value[v]


@compiled
def gradients(first, last, grad, query, keys, energy, values, weights, of_query, of_keys, of_energy, of_values):
    """The gradients of the same rows: that of the energy, in float64, is added to what is there."""
    places, hidden, width = keys.shape[1], keys.shape[2], values.shape[2]
    slopes, tangents = np.empty(places, np.float32), np.empty(hidden, np.float32)
    for n in range(first, last):
        asked, slope, of_asked, mean = query[n], grad[n], of_query[n], F(0)
        shared = np.zeros(hidden, np.float32)
        for k in range(places):
            share, value, of_value = weights[n, k], values[n, k], of_values[n, k]
            total = F(0)
            for v in range(width):
                total += slope[v] * value[v]
                of_value[v] = share * slope[v]
            slopes[k] = total
            if share != 0:
                mean += share * total
        for h in range(hidden):
            of_asked[h] = F(0)
        for k in range(places):
            key, of_key = keys[n, k], of_keys[n, k]
            inner = weights[n, k] * (slopes[k] - mean) if weights[n, k] != 0 else F(0)
            if inner == 0:
                for h in range(hidden):
                    of_key[h] = F(0)
            else:
                for h in range(hidden):
                    tangents[h] = tanh(asked[h] + key[h])
                for h in range(hidden):
                    shared[h] += inner * tangents[h]
                for h in range(hidden):
                    of_key[h] = inner * energy[h] * (F(1) - tangents[h] * tangents[h])
                for h in range(hidden):
                    of_asked[h] += of_key[h]
        for h in range(hidden):
            of_energy[h] += shared[h]
