"""The loops that sum over all dependency trees, for numba: imported when first called.

Inside, a sentence is the n words that are present, and `arcs` (n, n) the exponentials of their scores, the roots' on
the diagonal; the best arc of each word is 1, which nothing but log Z depends on. All is analytic, so that the same
loops, given complex arcs whose imaginary part is a tiny step, give a directional derivative with no rounding
but their own (Squire and Trapp 1998). What is too small or too large for that is not `sure`.
"""

import numpy as np

from regard.kernels.on_cpu import compiled

STEP = 1e-20
"""How far along a direction: what is of second order is nothing beside what is of first."""
SMALLEST = 1e-150
"""A sum below this is not sure: too many of its terms may have been too small for a number."""
GROWTH, RANGE = 2.0, 640.0
"""The projective trees of n words are fewer than exp(GROWTH n); a number may be as small as exp(-RANGE)."""


@compiled
def sums(first, last, scores, present, projective, single_root, sure, log_z, marginals):
    """Log Z and the marginals of the rows first to last, and whether they are sure."""
    for row in range(first, last):
        words = np.flatnonzero(present[row])
        n = len(words)
        arcs, found = np.empty((n, n)), np.zeros((n, n))
        common = _weights(scores[row], words, arcs)
        total = _all(arcs, projective, single_root, found)
        log_z[row] = common + total
        sure[row] = is_sure(total, found)
        marginals[row] = 0.0
        for i in range(n):
            for j in range(n):
                marginals[row, words[i], words[j]] = found[i, j]


@compiled
def along(first, last, direction, scores, present, projective, single_root, sure, out):
    """How the marginals of the same rows change in the direction, to which their second derivative is applied."""
    for row in range(first, last):
        words = np.flatnonzero(present[row])
        n = len(words)
        arcs, found = np.empty((n, n)), np.zeros((n, n), np.complex128)
        _weights(scores[row], words, arcs)
        longest = 0.0
        for i in words:
            for j in words:
                longest = max(longest, abs(direction[row, i, j]))
        step = STEP / longest if longest > 0 else 0.0
        moved = np.empty((n, n), np.complex128)
        for i in range(n):
            for j in range(n):
                moved[i, j] = complex(arcs[i, j], arcs[i, j] * step * direction[row, words[i], words[j]])
        total = _all(moved, projective, single_root, found)
        sure[row] = is_sure(total, found)
        out[row] = 0.0
        for i in range(n):
            for j in range(n):
                out[row, words[i], words[j]] = found[i, j].imag / STEP * longest


@compiled
def _weights(scores, words, arcs):
    """The arcs, and the logarithm of what was taken out of them."""
    common = 0.0
    for i in range(len(words)):
        best = -np.inf
        for j in words:
            best = max(best, scores[words[i], j])
        for j in range(len(words)):
            arcs[i, j] = np.exp(scores[words[i], words[j]] - best)
        common += best
    return common


@compiled
def is_sure(total, marginals):
    """Whether every word has one head."""
    if not np.isfinite(total):
        return False
    for i in range(len(marginals)):
        heads = 0.0
        for j in range(len(marginals)):
            heads += marginals[i, j].real
        if not abs(heads - 1.0) < 1e-9:
            return False
    return True


@compiled
def _all(arcs, projective, single_root, marginals):
    """Log Z, NaN where it is not sure, and the marginals."""
    if len(arcs) == 0:
        return 0.0
    return _spans(arcs, single_root, marginals) if projective else eliminated(arcs, single_root, marginals)


@compiled
def inside(arcs, single_root):
    """By the spans of Eisner 1996, from the narrow to the wide: with the head at the left, `right`, or at the right,
    `left`, and such of which the last step was an arc; each by its ends as first and second index, or the other way
    round, so that all sums are along rows. At last what a sentence consists of, and log Z, NaN where it is not sure."""
    n = len(arcs)
    right, right_to = np.zeros_like(arcs), np.zeros_like(arcs)
    left, left_to = np.zeros_like(arcs), np.zeros_like(arcs)
    arc_right, arc_left_to = np.zeros_like(arcs), np.zeros_like(arcs)
    for i in range(n):
        right[i, i] = right_to[i, i] = left[i, i] = left_to[i, i] = 1.0
    for width in range(1, n):
        for i in range(n - width):
            j = i + width
            both = _dot(right[i, i:j], left_to[j, i + 1 : j + 1])
            arc_right[i, j], arc_left_to[j, i] = both * arcs[j, i], both * arcs[i, j]
            right[i, j] = _dot(arc_right[i, i + 1 : j + 1], right_to[j, i + 1 : j + 1])
            left[i, j] = _dot(left[i, i:j], arc_left_to[j, i:j])
            right_to[j, i], left_to[j, i] = right[i, j], left[i, j]
    totals, roots = np.zeros(n + 1, arcs.dtype), np.zeros_like(arcs[0])
    totals[0] = 1.0
    for word in range(n):
        starts = 1 if single_root else word + 1
        roots[word] = arcs[word, word] * _dot(totals[:starts], left_to[word, :starts])
        totals[word + 1] = _dot(roots[: word + 1], right_to[word, : word + 1])
    log_z = np.log(totals[n].real)
    if not (log_z > np.log(SMALLEST) and log_z > GROWTH * n - RANGE):
        log_z = np.nan
    return (right, right_to, left, left_to, arc_right, arc_left_to), totals, roots, log_z


@compiled
def _spans(arcs, single_root, marginals):
    """By these spans, and back."""
    n = len(arcs)
    charts, totals, roots, log_z = inside(arcs, single_root)
    right, right_to, left, left_to, arc_right, arc_left_to = charts
    if log_z != log_z:
        return log_z

    of_right, of_right_to = np.zeros_like(arcs), np.zeros_like(arcs)
    of_left, of_left_to = np.zeros_like(arcs), np.zeros_like(arcs)
    of_arc_right, of_arc_left_to = np.zeros_like(arcs), np.zeros_like(arcs)
    of_totals, of_roots = np.zeros_like(totals), np.zeros_like(roots)
    of_totals[n] = 1.0 / totals[n]
    for word in range(n - 1, -1, -1):
        _add(of_roots[: word + 1], of_totals[word + 1], right_to[word, : word + 1])
        _add(of_right_to[word, : word + 1], of_totals[word + 1], roots[: word + 1])
        marginals[word, word] = of_roots[word] * roots[word]
        starts = 1 if single_root else word + 1
        _add(of_totals[:starts], of_roots[word] * arcs[word, word], left_to[word, :starts])
        _add(of_left_to[word, :starts], of_roots[word] * arcs[word, word], totals[:starts])
    for width in range(n - 1, 0, -1):
        for i in range(n - width):
            j = i + width
            slope = of_right[i, j] + of_right_to[j, i]
            _add(of_arc_right[i, i + 1 : j + 1], slope, right_to[j, i + 1 : j + 1])
            _add(of_right_to[j, i + 1 : j + 1], slope, arc_right[i, i + 1 : j + 1])
            slope = of_left[i, j] + of_left_to[j, i]
            _add(of_left[i, i:j], slope, arc_left_to[j, i:j])
            _add(of_arc_left_to[j, i:j], slope, left[i, i:j])
            marginals[j, i] = of_arc_right[i, j] * arc_right[i, j]
            marginals[i, j] = of_arc_left_to[j, i] * arc_left_to[j, i]
            slope = of_arc_right[i, j] * arcs[j, i] + of_arc_left_to[j, i] * arcs[i, j]
            _add(of_right[i, i:j], slope, left_to[j, i + 1 : j + 1])
            _add(of_left_to[j, i + 1 : j + 1], slope, right[i, i:j])
    return log_z


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
def _dot(one, other):
    total = one[0] * other[0] if len(one) > 0 else one.sum()
    for k in range(1, len(one)):
        total += one[k] * other[k]
    return total


@compiled
def _add(out, factor, row):
    for k in range(len(out)):
        out[k] += factor * row[k]
