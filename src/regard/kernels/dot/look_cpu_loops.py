"""The loops of one look by dot products, float32, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.on_cpu import compiled

F = np.float32


@compiled
def add(weight, values, seen, context):
    """context = sum_k weight[k] values[k] over the k that are seen, four at a time."""
    width, fours = len(context), len(seen) // 4 * 4
    for v in range(width):
        context[v] = F(0)
    for i in range(0, fours, 4):
        a, b, c, d = seen[i], seen[i + 1], seen[i + 2], seen[i + 3]
        one, two, three, four = weight[a], weight[b], weight[c], weight[d]
        first, second, third, fourth = values[a], values[b], values[c], values[d]
        for v in range(width):
            context[v] += one * first[v] + two * second[v] + three * third[v] + four * fourth[v]
    for i in range(fours, len(seen)):
        share, value = weight[seen[i]], values[seen[i]]
        for v in range(width):
            context[v] += share * value[v]


@compiled
def looks(first, last, query, keys, values, mask, out):
    """out[n, 0] = sum_k weights[k] values[n, k], then the weights, a softmax over the k in the mask of query . key;
    for rows n from first to last."""
    places, size, width = keys.shape[1], keys.shape[2], values.shape[2]
    seen = np.empty(places, np.int64)
    context, weight = np.empty(width, F), np.empty(places, F)  # side by side in memory, which part of a row is not
    for n in range(first, last):
        asked = query[n, 0]
        top = F(-np.inf)
        for k in range(places):
            weight[k] = F(-np.inf)
            if mask[n, 0, k]:
                key, total = keys[n, k], F(0)
                for d in range(size):
                    total += asked[d] * key[d]
                weight[k] = total
                top = total if total > top else top
        top = F(0) if top == F(-np.inf) else top
        norm = F(0)
        for k in range(places):
            weight[k] = np.exp(weight[k] - top) if mask[n, 0, k] else F(0)
            norm += weight[k]
        count = 0
        for k in range(places):
            if weight[k] != 0 or norm != norm:  # the whole row is NaN, as softmax has it
                weight[k] /= norm
                seen[count] = k
                count += 1
        add(weight, values[n], seen[:count], context)
        out[n, 0, :width] = context
        out[n, 0, width:] = weight


@compiled
def gradients(first, last, grad, query, keys, values, out, of_query, of_keys, of_values):
    """The gradients of the same rows."""
    places, size, width = keys.shape[1], keys.shape[2], values.shape[2]
    slopes, slope = np.empty(places, F), np.empty(width, F)
    for n in range(first, last):
        asked, of_asked, mean = query[n, 0], of_query[n, 0], F(0)
        slope[:] = grad[n, 0, :width]
        for k in range(places):
            share, value, of_value = out[n, 0, width + k], values[n, k], of_values[n, k]
            total = grad[n, 0, width + k]
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
            share, key, of_key = out[n, 0, width + k], keys[n, k], of_keys[n, k]
            inner = share * (slopes[k] - mean) if share != 0 else F(0)
            for d in range(size):
                of_key[d] = inner * asked[d]
            if share != 0:
                for d in range(size):
                    of_asked[d] += inner * key[d]
