"""The loops of one look by dot products, float32, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import exp32

F = np.float32
LEAST = F(-87)
"""The exponential of less is none in float32."""


@compiled
def products(asked, rows, seen, out):
    """out[i] = asked . rows[seen[i]], four at a time."""
    size, fours = len(asked), len(seen) // 4 * 4
    for i in range(0, fours, 4):
        first, second, third, fourth = rows[seen[i]], rows[seen[i + 1]], rows[seen[i + 2]], rows[seen[i + 3]]
        one, two, three, four = F(0), F(0), F(0), F(0)
        for d in range(size):
            one += asked[d] * first[d]
            two += asked[d] * second[d]
            three += asked[d] * third[d]
            four += asked[d] * fourth[d]
        out[i], out[i + 1], out[i + 2], out[i + 3] = one, two, three, four
    for i in range(fours, len(seen)):
        row, total = rows[seen[i]], F(0)
        for d in range(size):
            total += asked[d] * row[d]
        out[i] = total


@compiled
def add(weight, rows, seen, out):
    """out = sum_i weight[i] rows[seen[i]], four at a time."""
    width, fours = len(out), len(seen) // 4 * 4
    for v in range(width):
        out[v] = F(0)
    for i in range(0, fours, 4):
        one, two, three, four = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        first, second, third, fourth = rows[seen[i]], rows[seen[i + 1]], rows[seen[i + 2]], rows[seen[i + 3]]
        for v in range(width):
            out[v] += one * first[v] + two * second[v] + three * third[v] + four * fourth[v]
    for i in range(fours, len(seen)):
        share, row = weight[i], rows[seen[i]]
        for v in range(width):
            out[v] += share * row[v]


@compiled
def softmax(scores):
    """Makes weights of the scores: none if all are -inf, NaN if one is."""
    top = F(-np.inf)
    for i in range(len(scores)):
        top = scores[i] if scores[i] > top else top
    top, norm = F(0) if top == F(-np.inf) else top, F(0)
    for i in range(len(scores)):
        below = scores[i] - top
        power = exp32(below)
        scores[i] = F(0) if below < LEAST else power
        norm += scores[i]
    share = F(0) if norm == 0 else F(1) / norm
    for i in range(len(scores)):
        scores[i] *= share


@compiled
def looks(first, last, query, keys, values, mask, out):
    """out[n, 0] = sum_k weights[k] values[n, k], then the weights, a softmax over the k in the mask of query . key;
    for rows n from first to last."""
    places, width = keys.shape[1], values.shape[2]
    seen, weight = np.empty(places, np.int64), np.empty(places, F)
    context = np.empty(width, F)  # side by side in memory, which part of a row is not
    for n in range(first, last):
        count, read = 0, 0
        for k in range(places):
            seen[count] = k
            count += mask[n, 0, k]
        products(query[n, 0], keys[n], seen[:count], weight)
        softmax(weight[:count])
        out[n, 0, width:] = F(0)
        for i in range(count):
            k, share = seen[i], weight[i]
            out[n, 0, width + k] = share
            seen[read], weight[read] = k, share
            read += share != 0
        add(weight, values[n], seen[:read], context)
        out[n, 0, :width] = context


@compiled
def gradients(first, last, grad, query, keys, values, out, of_query, of_keys, of_values):
    """The gradients of the same rows."""
    places, size, width = keys.shape[1], keys.shape[2], values.shape[2]
    seen, weight, slopes = np.empty(places, np.int64), np.empty(places, F), np.empty(places, F)
    slope, asked, of_asked = np.empty(width, F), np.empty(size, F), np.empty(size, F)
    for n in range(first, last):
        slope[:], asked[:] = grad[n, 0, :width], query[n, 0]
        count, mean = 0, F(0)
        for k in range(places):
            share, of_value = out[n, 0, width + k], of_values[n, k]
            for v in range(width):
                of_value[v] = share * slope[v]
            seen[count], weight[count] = k, share
            count += share != 0
        products(slope, values[n], seen[:count], slopes)
        for i in range(count):
            slopes[i] += grad[n, 0, width + seen[i]]
            mean += weight[i] * slopes[i]
        of_keys[n] = F(0)
        for i in range(count):
            slopes[i] = weight[i] * (slopes[i] - mean)
            of_key = of_keys[n, seen[i]]
            for d in range(size):
                of_key[d] = slopes[i] * asked[d]
        add(slopes, keys[n], seen[:count], of_asked)
        of_query[n, 0] = of_asked
