"""The elimination that sums over the trees of any shape, and how it changes along a direction, for numba: imported when
first called. What the arguments are is said in `cpu_loops`."""

import numpy as np

from regard.kernels.on_cpu import compiled

SMALLEST = 1e-150
"""A sum below this is not sure: too many of its terms may have been too small for a number."""
LARGEST = 1e2
"""Entries of an inverse above which differences of them may lose more than four digits."""


@compiled
def eliminated(arcs, single_root, marginals):
    """By eliminating the last word, then the one before it, and back: what is left of a word are its chances to go to
    each that is still there, and to the root, the last column. All terms are positive on the way there; on the way
    back those of 1 - `visits` are not, but none is larger than the number of words.

    The arc of a single root is no way to go on, but for the first word, which is eliminated last.
    """
    n = len(arcs)
    ways, totals = np.zeros((n, n + 1), arcs.dtype), np.zeros_like(arcs[0])
    for i in range(n):
        ways[i, :n], ways[i, n] = arcs[i], arcs[i, i]
    log_z = 0.0
    for word in range(n - 1, -1, -1):
        row = ways[word]
        total = row[n] if word == 0 or not single_root else 0.0 * row[n]
        for j in range(word):
            total += row[j]
        if not total.real > SMALLEST:
            return np.nan
        totals[word] = total
        log_z += np.log(total.real)
        for j in range(word):
            row[j] /= total
        row[n] /= total
        for i in range(word):
            via = ways[i, word]
            for j in range(word):
                ways[i, j] += via * ways[word, j]
            ways[i, n] += via * row[n]

    slopes, more = np.zeros_like(ways), np.zeros_like(arcs[0])
    for word in range(n):
        row = ways[word]
        more[:word] = 0.0
        visits = 0.0 * row[n]
        to_root = 0.0 * row[n]
        for i in range(word):
            via, slope = ways[i, word], slopes[i, n] * row[n]
            to_root += via * slopes[i, n]
            for j in range(word):
                slope += slopes[i, j] * row[j]
                more[j] += via * slopes[i, j]
            slopes[i, word] = slope
            visits += via * slope
        for j in range(word):
            slopes[word, j] = (1.0 - visits + more[j]) / totals[word]
        alone = 1.0 - visits if word == 0 or not single_root else 0.0 * visits
        slopes[word, n] = (alone + to_root) / totals[word]
    for i in range(n):
        for j in range(n):
            marginals[i, j] = arcs[i, j] * slopes[i, n if i == j else j]
    return log_z


@compiled
def eliminated_along(arcs, direction, single_root, marginals, changes):
    """The same, and how the marginals change where the scores change in the direction (n, n): beside each number is its
    derivative, d of its name. (A dual number, as the complex one of `along`; apart, the two are summed along rows.)"""
    n = len(arcs)
    ways, d_ways = np.zeros((n, n + 1)), np.zeros((n, n + 1))
    totals, d_totals = np.zeros(n), np.zeros(n)
    for i in range(n):
        for j in range(n):
            ways[i, j], d_ways[i, j] = arcs[i, j], arcs[i, j] * direction[i, j]
        ways[i, n], d_ways[i, n] = ways[i, i], d_ways[i, i]
    log_z = 0.0
    for word in range(n - 1, -1, -1):
        row, d_row = ways[word], d_ways[word]
        total, d_total = 0.0, 0.0
        if word == 0 or not single_root:
            total, d_total = row[n], d_row[n]
        for j in range(word):
            total += row[j]
            d_total += d_row[j]
        if not total > SMALLEST:
            return np.nan
        totals[word], d_totals[word] = total, d_total
        log_z += np.log(total)
        change = d_total / total
        for j in range(word):
            row[j] /= total
            d_row[j] = d_row[j] / total - row[j] * change
        row[n] /= total
        d_row[n] = d_row[n] / total - row[n] * change
        for i in range(word):
            via, d_via = ways[i, word], d_ways[i, word]
            for j in range(word):
                ways[i, j] += via * row[j]
                d_ways[i, j] += via * d_row[j] + d_via * row[j]
            ways[i, n] += via * row[n]
            d_ways[i, n] += via * d_row[n] + d_via * row[n]

    slopes, d_slopes = np.zeros((n, n + 1)), np.zeros((n, n + 1))
    more, d_more = np.zeros(n), np.zeros(n)
    for word in range(n):
        row, d_row = ways[word], d_ways[word]
        more[:word], d_more[:word] = 0.0, 0.0
        visits, d_visits, to_root, d_to_root = 0.0, 0.0, 0.0, 0.0
        for i in range(word):
            via, d_via = ways[i, word], d_ways[i, word]
            slope, d_slope = slopes[i, n] * row[n], slopes[i, n] * d_row[n] + d_slopes[i, n] * row[n]
            to_root += via * slopes[i, n]
            d_to_root += via * d_slopes[i, n] + d_via * slopes[i, n]
            for j in range(word):
                slope += slopes[i, j] * row[j]
                d_slope += slopes[i, j] * d_row[j] + d_slopes[i, j] * row[j]
                more[j] += via * slopes[i, j]
                d_more[j] += via * d_slopes[i, j] + d_via * slopes[i, j]
            slopes[i, word], d_slopes[i, word] = slope, d_slope
            visits += via * slope
            d_visits += via * d_slope + d_via * slope
        change = d_totals[word] / totals[word]
        for j in range(word):
            slopes[word, j] = (1.0 - visits + more[j]) / totals[word]
            d_slopes[word, j] = (d_more[j] - d_visits) / totals[word] - slopes[word, j] * change
        alone, d_alone = 0.0, 0.0
        if word == 0 or not single_root:
            alone, d_alone = 1.0 - visits, -d_visits
        slopes[word, n] = (alone + to_root) / totals[word]
        d_slopes[word, n] = (d_alone + d_to_root) / totals[word] - slopes[word, n] * change
    for i in range(n):
        for j in range(n):
            slope, d_slope = slopes[i, n if i == j else j], d_slopes[i, n if i == j else j]
            marginals[i, j] = arcs[i, j] * slope
            changes[i, j] = arcs[i, j] * (d_slope + slope * direction[i, j])
    return log_z


@compiled
def inverse_along(arcs, direction, marginals, changes):
    """The same changes of trees with any number of roots, and whether they are sure, by the marginals.

    log Z is the log-determinant of the Laplacian L of the arcs, with the roots' on the diagonal (Tutte 1948; Koo et al.
    2007, "Structured Prediction Models via the Matrix-Tree Theorem"). Its slopes, the marginals by the arcs, are
    differences of entries of the inverse of L, so that this is known from them; d L^-1 = - L^-1 dL L^-1, and what is
    asked are differences of that. Where the inverse is large, they lose digits.
    """
    n = len(arcs)
    inverse, turned = np.empty((n, n)), np.empty((n, n))  # (word, head) of L^-1 are its column and its row
    for i in range(n):
        if not arcs[i, i] > 0.0:
            return False
        root = marginals[i, i] / arcs[i, i]
        for j in range(n):
            if not arcs[i, j] > 0.0:
                return False
            inverse[i, j] = root if i == j else root - marginals[i, j] / arcs[i, j]
            if not abs(inverse[i, j]) < LARGEST:
                return False
            turned[j, i] = inverse[i, j]

    moved, once, change = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))  # dL, dL L^-1, - d L^-1 by its columns
    for i in range(n):
        total = 0.0
        for j in range(n):
            moved[i, j] = -arcs[i, j] * direction[i, j]
            total -= moved[i, j]
        moved[i, i] = total
    _multiplied(moved, turned, once)
    _multiplied(once.T, inverse, change)
    for i in range(n):
        for j in range(n):
            more = 0.0 if i == j else change[i, j]
            changes[i, j] = arcs[i, j] * (more - change[i, i]) + marginals[i, j] * direction[i, j]
    return True


@compiled
def _multiplied(a, b, out):
    """The product of two matrices (n, n), by four rows of the second at a time."""
    n = len(a)
    whole = n - n % 4
    for i in range(n):
        for k in range(n):
            out[i, k] = 0.0
        for j in range(0, whole, 4):
            a0, a1, a2, a3 = a[i, j], a[i, j + 1], a[i, j + 2], a[i, j + 3]
            for k in range(n):
                out[i, k] += a0 * b[j, k] + a1 * b[j + 1, k] + a2 * b[j + 2, k] + a3 * b[j + 3, k]
        for j in range(whole, n):
            for k in range(n):
                out[i, k] += a[i, j] * b[j, k]
