"""The loops that sum over all binary trees, for numba: imported when first called.

Inside, a sentence is the n words that are present, and `weights` (n, n) the exponentials of the scores of its spans,
those of the words 1 and of the best tree too, which nothing but log Z depends on. All is analytic, so that the same
loops, given complex weights whose imaginary part is a tiny step, give a directional derivative with no rounding but
their own (Squire and Trapp 1998). What is too small or too large for that is not `sure`.
"""

import numpy as np

from regard.kernels.on_cpu import compiled

STEP = 1e-20
"""How far along a direction: what is of second order is nothing beside what is of first."""
LARGEST = 1e150, 1e20, 1e100
"""Of a sum over the trees of a span, of a weight, and of a sum over what is around a span: where none is larger, what
is too small for a number, 1e-308, is nothing beside the sum over all trees, which is at least 1."""


@compiled
def sums(first, last, scores, present, sure, log_z, marginals):
    """Log Z and the marginals of the rows first to last, and whether they are sure."""
    for row in range(first, last):
        words = np.flatnonzero(present[row])
        n = len(words)
        weights, found = np.empty((n, n)), np.zeros((n, n))
        common = _weights(scores[row], words, weights)
        marginals[row] = 0.0
        if not np.isfinite(common):
            log_z[row] = common
            sure[row] = common == -np.inf
            continue
        total = _spans(weights, found)
        log_z[row] = common + total
        sure[row] = _is_sure(total, found)
        for i in range(n):
            for j in range(i, n):
                marginals[row, words[i], words[j]] = found[i, j]


@compiled
def along(first, last, direction, scores, present, sure, out):
    """How the marginals of the same rows change in the direction, to which their second derivative is applied."""
    for row in range(first, last):
        words = np.flatnonzero(present[row])
        n = len(words)
        weights, found = np.empty((n, n)), np.zeros((n, n), np.complex128)
        common = _weights(scores[row], words, weights)
        out[row] = 0.0
        if not np.isfinite(common):
            sure[row] = common == -np.inf
            continue
        longest = 0.0
        for i in range(n):
            for j in range(i, n):
                longest = max(longest, abs(direction[row, words[i], words[j]]))
        step = STEP / longest if longest > 0 else 0.0
        moved = np.empty((n, n), np.complex128)
        for i in range(n):
            for j in range(i, n):
                moved[i, j] = complex(weights[i, j], weights[i, j] * step * direction[row, words[i], words[j]])
        sure[row] = _is_sure(_spans(moved, found), found)
        for i in range(n):
            for j in range(i, n):
                out[row, words[i], words[j]] = found[i, j].imag / STEP * longest


@compiled
def _weights(scores, words, weights):
    """The weights of the spans, and the score of the best tree, by which they were divided: the words' scores are in
    every tree, and what is left of it is taken in equal parts from all wider spans, one less than there are words."""
    n = len(words)
    best, best_to = np.empty((n, n)), np.empty((n, n))
    leaves = 0.0
    for i in range(n):
        leaves += scores[words[i], words[i]]
        best[i, i] = best_to[i, i] = 0.0
    for j in range(1, n):
        for i in range(j - 1, -1, -1):
            score = scores[words[i], words[j]]
            if score != score:
                return np.nan
            best[i, j] = best_to[j, i] = score + _best(best[i, i:j], best_to[j, i + 1 : j + 1])
    total = best[0, n - 1] if n > 1 else 0.0
    if not np.isfinite(total):
        return total if leaves == leaves else np.nan
    part = total / (n - 1) if n > 1 else 0.0
    for i in range(n):
        weights[i, i] = 1.0
        for j in range(i + 1, n):
            weights[i, j] = np.exp(scores[words[i], words[j]] - part)
    return leaves + total


@compiled
def _best(left, right):
    best = -np.inf
    for k in range(len(left)):
        best = max(best, left[k] + right[k])
    return best


@compiled
def _is_sure(total, marginals):
    """Whether every word is a span, and there are as many wider ones less one."""
    if not np.isfinite(total):
        return False
    n, spans = len(marginals), 0.0
    for i in range(n):
        for j in range(i, n):
            spans += marginals[i, j].real
    return n == 0 or abs(spans - (2 * n - 1)) < 1e-9 * n


@compiled
def _spans(weights, marginals):
    """Log Z, NaN where it is not sure, and the marginals: column after column of the last words and back, `left` by the
    first and the last word of a span, `right` by the last and the first, so that all sums are along rows."""
    n = len(weights)
    if n == 0:
        return 0.0
    left, right = np.zeros_like(weights), np.zeros_like(weights)
    largest = heaviest = 1.0
    for j in range(n):
        left[j, j] = right[j, j] = weights[j, j]
        for i in range(j - 1, -1, -1):
            heaviest = max(heaviest, weights[i, j].real)
            span = weights[i, j] * _dot(left[i, i:j], right[j, i + 1 : j + 1])
            left[i, j] = right[j, i] = span
            largest = max(largest, span.real)
    total = left[0, n - 1]
    if not (largest < LARGEST[0] and heaviest < LARGEST[1]):
        return np.nan

    of_left, of_right = np.zeros_like(weights), np.zeros_like(weights)
    of_left[0, n - 1] = 1.0 / total
    largest = 0.0
    for j in range(n - 1, -1, -1):
        for i in range(j):
            outside = of_left[i, j] + of_right[j, i]
            largest = max(largest, outside.real)
            marginals[i, j] = outside * left[i, j]
            slope = outside * weights[i, j]
            _add(of_left[i, i:j], slope, right[j, i + 1 : j + 1])
            _add(of_right[j, i + 1 : j + 1], slope, left[i, i:j])
        marginals[j, j] = (of_left[j, j] + of_right[j, j]) * left[j, j]
    return np.log(total.real) if largest < LARGEST[2] else np.nan


@compiled
def _dot(one, other):
    total = one[0] * other[0]
    for k in range(1, len(one)):
        total += one[k] * other[k]
    return total


@compiled
def _add(out, factor, row):
    for k in range(len(out)):
        out[k] += factor * row[k]
