"""The loops of windows, which numba compiles: the products of each query with the few rows that lie in its window.

Window q holds the rows first[n, q] ... first[n, q] + w - 1 of the K; what lies outside of them is none. Each loop is
the derivative of the other two. What has a weight of zero is not looked at: it may be NaN.
"""

import numpy as np

from regard.kernels.on_cpu import compiled


@compiled
def scores(begin, end, query, keys, first, out):
    """out[n, q, j] = query[n, q] . keys[n, first[n, q] + j], zero where there is none; windows begin ... end - 1."""
    queries, places, width = query.shape[1], keys.shape[1], out.shape[2]
    for window in range(begin, end):
        n, q = divmod(window, queries)
        one = query[n, q]
        for j in range(width):
            place, total = first[n, q] + j, query.dtype.type(0)
            if 0 <= place < places:
                other = keys[n, place]
                for d in range(len(one)):
                    total += one[d] * other[d]
            out[n, q, j] = total


@compiled
def means(begin, end, weights, values, first, out):
    """out[n, q] = sum_j weights[n, q, j] values[n, first[n, q] + j]; windows begin ... end - 1."""
    queries, places, width = out.shape[1], values.shape[1], weights.shape[2]
    for window in range(begin, end):
        n, q = divmod(window, queries)
        total = np.zeros_like(out[n, q])
        low, high = max(0, -first[n, q]), min(width, places - first[n, q])
        for j in range(low, high):
            weight, value = weights[n, q, j], values[n, first[n, q] + j]
            if weight != 0:
                for d in range(len(total)):
                    total[d] += weight * value[d]
        out[n, q] = total


@compiled
def spread(begin, end, weights, rows, first, out):
    """out[n, first[n, q] + j] += weights[n, q, j] rows[n, q]; of n from begin to end - 1."""
    places, width = out.shape[1], weights.shape[2]
    for n in range(begin, end):
        for q in range(rows.shape[1]):
            row = rows[n, q]
            low, high = max(0, -first[n, q]), min(width, places - first[n, q])
            for j in range(low, high):
                weight, place = weights[n, q, j], out[n, first[n, q] + j]
                if weight != 0:
                    for d in range(len(row)):
                        place[d] += weight * row[d]
