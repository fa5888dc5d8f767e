"""The loops that sum over all dependency trees, for numba: imported when first called.

What is given are the exponentials `exps` of the scores, of which the best of each word is 1, and the sum `common` of
what was taken out of them. Inside, a sentence is the n words that are present, and `arcs` (n, n) are theirs, the roots'
on the diagonal. The loops over spans are analytic, so that, given complex arcs whose imaginary part is a tiny step,
they give a directional derivative with no rounding but their own (Squire and Trapp 1998). What is too small or too
large for that is not `sure`.
"""

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.tree.elimination_cpu_loops import SMALLEST, eliminated, eliminated_along, inverse_along

STEP = 1e-20
"""How far along a direction: what is of second order is nothing beside what is of first."""
GROWTH, RANGE = 2.0, 640.0
"""The projective trees of n words are fewer than exp(GROWTH n); a number may be as small as exp(-RANGE)."""


@compiled
def sums(first, last, exps, common, present, projective, single_root, sure, log_z, marginals):
    """Log Z and the marginals of the rows first to last, and whether they are sure."""
    for row in range(first, last):
        words = np.flatnonzero(present[row])
        n = len(words)
        arcs, found = np.empty((n, n)), np.zeros((n, n))
        _packed(exps[row], words, arcs)
        total = _all(arcs, projective, single_root, found)
        log_z[row] = common[row] + total
        sure[row] = is_sure(total, found)
        marginals[row] = 0.0
        for i in range(n):
            for j in range(n):
                marginals[row, words[i], words[j]] = found[i, j]


@compiled
def along(first, last, direction, exps, marginals, present, projective, single_root, sure, out):
    """How the marginals of the same rows change in the direction, to which their second derivative is applied."""
    for row in range(first, last):
        words = np.flatnonzero(present[row])
        n = len(words)
        arcs, turned, changes = np.empty((n, n)), np.empty((n, n)), np.zeros((n, n))
        _packed(exps[row], words, arcs)
        _packed(direction[row], words, turned)
        if projective:
            sure[row] = _spans_along(arcs, turned, single_root, changes)
        else:
            known = np.empty((n, n))
            _packed(marginals[row], words, known)
            sure[row] = not single_root and inverse_along(arcs, turned, known, changes)
            if not sure[row]:
                sure[row] = _eliminated_along(arcs, turned, single_root, changes)
        out[row] = 0.0
        for i in range(n):
            for j in range(n):
                out[row, words[i], words[j]] = changes[i, j]


@compiled
def _eliminated_along(arcs, direction, single_root, changes):
    """By eliminating words, and whether that is sure."""
    found = np.zeros_like(arcs)
    total = eliminated_along(arcs, direction, single_root, found, changes) if len(arcs) > 0 else 0.0
    return is_sure(total, found)


@compiled
def _spans_along(arcs, direction, single_root, changes):
    """By spans with a tiny imaginary part, and whether that is sure."""
    n = len(arcs)
    longest = np.abs(direction).max() if n > 0 else 0.0
    step = STEP / longest if longest > 0 else 0.0
    moved, found = np.empty((n, n), np.complex128), np.zeros((n, n), np.complex128)
    for i in range(n):
        for j in range(n):
            moved[i, j] = complex(arcs[i, j], arcs[i, j] * step * direction[i, j])
    total = _spans(moved, single_root, found) if n > 0 else 0.0
    for i in range(n):
        for j in range(n):
            changes[i, j] = found[i, j].imag / STEP * longest
    return is_sure(total, found)


@compiled
def _packed(pairs, words, out):
    """What there is of the words that are present."""
    for i in range(len(words)):
        for j in range(len(words)):
            out[i, j] = pairs[words[i], words[j]]


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
def _dot(one, other):
    total = one[0] * other[0] if len(one) > 0 else one.sum()
    for k in range(1, len(one)):
        total += one[k] * other[k]
    return total


@compiled
def _add(out, factor, row):
    for k in range(len(out)):
        out[k] += factor * row[k]
