"""The loops of one look by dot products, float32, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.on_cpu import compiled

F = np.float32


@compiled
def looks(first, last, query, keys, values, mask, out):
    """out[n] = sum_k weights[k] values[n, k], then the weights, a softmax over the k in the mask of query . key; for
    rows n from first to last."""
    places, size, width = keys.shape[1], keys.shape[2], values.shape[2]
    for n in range(first, last):
        asked, context, weight = query[n], out[n, :width], out[n, width:]
        top = F(-np.inf)
        for k in range(places):
            weight[k] = F(-np.inf)
            if mask[n, k]:
                key, total = keys[n, k], F(0)
                for d in range(size):
                    total += asked[d] * key[d]
                weight[k] = total
                top = total if total > top else top
        top = F(0) if top == F(-np.inf) else top
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
def gradients(first, last, grad, query, keys, values, out, of_query, of_keys, of_values):
    """The gradients of the same rows."""
    places, size, width = keys.shape[1], keys.shape[2], values.shape[2]
    slopes = np.empty(places, F)
    for n in range(first, last):
        asked, of_asked, slope, mean = query[n], of_query[n], grad[n, :width], F(0)
        for k in range(places):
            share, value, of_value = out[n, width + k], values[n, k], of_values[n, k]
            total = grad[n, width + k]
            if share != 0:
                for v in range(width):
                    total += slope[v] * value[v]
                mean += share * total
            for v in range(width):
                of_value[v] = share * slope[v]
            slopes[k] = total
        for d in range(size):
            of_asked[d] = F(0)
        for k in range(places):
            share, key, of_key = out[n, width + k], keys[n, k], of_keys[n, k]
            inner = share * (slopes[k] - mean) if share != 0 else F(0)
            for d in range(size):
                of_key[d] = inner * asked[d]
            if share != 0:
                for d in range(size):
                    of_asked[d] += inner * key[d]
