"""The loops that sum over all binary trees, for numba: imported when first called.

So many sentences as there are `LANES` are summed at once, side by side in the last dimension, which is what a processor
does in one step. Of a sentence there are the n words that are present, and `weights` (n, n, LANES) are the exponentials
of the scores of its spans, those of the words 1 and of the best tree too, which nothing but log Z depends on. All is
analytic, so that the same loops, given complex weights whose imaginary part is a tiny step, give a directional
derivative with no rounding but their own (Squire and Trapp 1998). What is too small or too large is not `sure`.
"""

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import exp

LANES = 8
STEP = 1e-20
"""How far along a direction: what is of second order is nothing beside what is of first."""
LARGEST = 1e150, 1e20, 1e100
"""Of a sum over the trees of a span, of a weight, and of a sum over what is around a span: where none is larger, what
is too small for a number, 1e-308, is nothing beside the sum over all trees, which is at least 1."""


@compiled
def sums(first, last, scores, present, sure, log_z, marginals):
    """Log Z and the marginals of the rows first to last, and whether they are sure."""
    for start in range(first, last, LANES):
        rows = np.arange(start, min(last, start + LANES))
        places, counts, weights, common = weighed(rows, scores, present)
        found = np.zeros_like(weights)
        _, _, totals = charts(weights, counts, found)
        for lane in range(len(rows)):
            row = rows[lane]
            log_z[row] = common[lane] + totals[lane] if common[lane] != -np.inf else -np.inf
            sure[row] = is_sure(common[lane], totals[lane], counts[lane], found[:, :, lane])
            marginals[row] = 0.0
            for j in range(counts[lane] if common[lane] != -np.inf else 0):
                for i in range(j + 1):
                    marginals[row, places[lane, i], places[lane, j]] = found[i, j, lane]


@compiled
def along(first, last, direction, scores, present, sure, out):
    """How the marginals of the same rows change in the direction, to which their second derivative is applied."""
    for start in range(first, last, LANES):
        rows = np.arange(start, min(last, start + LANES))
        places, counts, weights, common = weighed(rows, scores, present)
        moved, longest = weights.astype(np.complex128), np.zeros(len(rows))
        for lane in range(len(rows)):
            for j in range(counts[lane]):
                for i in range(j + 1):
                    size = abs(direction[rows[lane], places[lane, i], places[lane, j]])
                    longest[lane] = max(longest[lane], size)
            step = STEP / longest[lane] if longest[lane] > 0 else 0.0
            for j in range(counts[lane]):
                for i in range(j + 1):
                    slope = step * direction[rows[lane], places[lane, i], places[lane, j]]
                    moved[i, j, lane] = complex(weights[i, j, lane], weights[i, j, lane] * slope)
        found = np.zeros_like(moved)
        _, _, totals = charts(moved, counts, found)
        for lane in range(len(rows)):
            row = rows[lane]
            sure[row] = is_sure(common[lane], totals[lane], counts[lane], found[:, :, lane])
            out[row] = 0.0
            for j in range(counts[lane] if common[lane] != -np.inf else 0):
                for i in range(j + 1):
                    out[row, places[lane, i], places[lane, j]] = found[i, j, lane].imag / STEP * longest[lane]


@compiled
def weighed(rows, scores, present):
    """Where the words of the rows are, how many there are, the weights of their spans, and the scores of their best
    trees, by which the weights are divided: the words' scores are in every tree, and what is left of it is taken in
    equal parts from all wider spans, one less than there are words."""
    places, counts, weights = gathered(rows, scores, present)
    common = np.zeros(LANES)
    for lane in range(len(rows)):
        for i in range(counts[lane]):
            for j in range(i, counts[lane]):
                if weights[i, j, lane] != weights[i, j, lane]:
                    common[lane] = np.nan
            common[lane] += weights[i, i, lane]
            weights[i, i, lane] = 0.0
    best = highest(weights)[0][0]
    for lane in range(len(rows)):
        count = counts[lane]
        total = best[count - 1, lane] if count > 0 else 0.0
        common[lane] += total
        part = total / (count - 1) if count > 1 and abs(total) < np.inf else 0.0
        for i in range(count):
            for j in range(i + 1, count):
                weights[i, j, lane] -= part
    flat = weights.reshape(-1)
    for k in range(len(flat)):
        flat[k] = exp(flat[k]) if flat[k] > -700 else 0.0
    return places, counts, weights, common


@compiled
def gathered(rows, scores, present):
    """Where the words of the rows are, how many there are, and the scores (n, n, LANES) of their spans."""
    places, counts = np.zeros((LANES, scores.shape[1]), np.int64), np.zeros(LANES, np.int64)
    for lane in range(len(rows)):
        for word in range(scores.shape[1]):
            if present[rows[lane], word]:
                places[lane, counts[lane]] = word
                counts[lane] += 1
    n = counts.max()
    spans = np.full((n, n, LANES), -np.inf)
    for lane in range(len(rows)):
        for i in range(counts[lane]):
            for j in range(i, counts[lane]):
                spans[i, j, lane] = scores[rows[lane], places[lane, i], places[lane, j]]
    return places, counts, spans


@compiled
def highest(scores):
    """The scores of the best tree of each span (n, n, LANES), by its first word and its last, and the other way."""
    n = len(scores)
    left, right = np.empty_like(scores), np.empty_like(scores)
    for j in range(n):
        left[j, j] = right[j, j] = scores[j, j]
        for i in range(j - 1, -1, -1):
            out, ours = left[i, j], scores[i, j]
            _highest(left[i, i:j], right[j, i + 1 : j + 1], out)
            for lane in range(LANES):
                out[lane] += ours[lane]
            right[j, i] = out
    return left, right


@compiled
def _highest(one, other, out):
    out[:] = -np.inf
    twos = len(one) // 2 * 2
    for k in range(0, twos, 2):
        for lane in range(LANES):
            a, b = one[k, lane] + other[k, lane], one[k + 1, lane] + other[k + 1, lane]
            a = a if a > b else b
            out[lane] = a if a > out[lane] else out[lane]
    if twos < len(one):
        for lane in range(LANES):
            a = one[twos, lane] + other[twos, lane]
            out[lane] = a if a > out[lane] else out[lane]


@compiled
def is_sure(common, total, count, marginals):
    """Whether there is no tree, or every word is a span, and there are as many wider ones less one."""
    if common == -np.inf:
        return True
    if not (abs(common) < np.inf and abs(total) < np.inf):  # np.isfinite would be taken to be true of sums
        return False
    spans = 0.0
    for i in range(count):
        for j in range(i, count):
            spans += marginals[i, j].real
    return count == 0 or abs(spans - (2 * count - 1)) < 1e-9 * count


@compiled
def charts(weights, counts, marginals):
    """The sums over the trees of each span, log Z, NaN where it is not sure, and the marginals, zero where there is no
    tree: column after column of the last words and back, `left` by the first and the last word of a span, `right` by
    the last and the first, so that all sums are along rows."""
    n = len(weights)
    left, right = np.zeros_like(weights), np.zeros_like(weights)
    largest, heaviest = np.ones(LANES), np.ones(LANES)
    for j in range(n):
        left[j, j] = right[j, j] = weights[j, j]
        for i in range(j - 1, -1, -1):
            span, ours = left[i, j], weights[i, j]
            _dot(left[i, i:j], right[j, i + 1 : j + 1], span)
            for lane in range(LANES):
                span[lane] *= ours[lane]
                largest[lane] = span[lane].real if span[lane].real > largest[lane] else largest[lane]
                heaviest[lane] = ours[lane].real if ours[lane].real > heaviest[lane] else heaviest[lane]
            right[j, i] = span

    of_left, of_right, totals = np.zeros_like(weights), np.zeros_like(weights), np.zeros(LANES)
    for lane in range(LANES):
        if counts[lane] > 0 and left[0, counts[lane] - 1, lane].real > 0:
            whole = left[0, counts[lane] - 1, lane]
            totals[lane] = np.log(whole.real)
            of_left[0, counts[lane] - 1, lane] = 1.0 / whole
    around, slope = np.zeros(LANES), np.zeros_like(weights[0, 0]) if n > 0 else np.zeros(0, weights.dtype)
    for j in range(n - 1, -1, -1):
        for i in range(j + 1):
            one, other, span, ours, found = of_left[i, j], of_right[j, i], left[i, j], weights[i, j], marginals[i, j]
            for lane in range(LANES):
                outside = one[lane] + other[lane]
                around[lane] = outside.real if outside.real > around[lane] else around[lane]
                found[lane] = outside * span[lane]
                slope[lane] = outside * ours[lane]
            if i < j:
                _add(of_left[i, i:j], slope, right[j, i + 1 : j + 1])
                _add(of_right[j, i + 1 : j + 1], slope, left[i, i:j])
    for lane in range(LANES):
        if not (largest[lane] < LARGEST[0] and heaviest[lane] < LARGEST[1] and around[lane] < LARGEST[2]):
            totals[lane] = np.nan
    return left, right, totals


@compiled
def _dot(one, other, out):
    out[:] = 0.0
    fours = len(one) // 4 * 4
    for k in range(0, fours, 4):
        for lane in range(LANES):
            near = one[k, lane] * other[k, lane] + one[k + 1, lane] * other[k + 1, lane]
            far = one[k + 2, lane] * other[k + 2, lane] + one[k + 3, lane] * other[k + 3, lane]
            out[lane] += near + far
    for k in range(fours, len(one)):
        for lane in range(LANES):
            out[lane] += one[k, lane] * other[k, lane]


@compiled
def _add(out, factor, rows):
    for k in range(len(out)):
        for lane in range(LANES):
            out[k, lane] += factor[lane] * rows[k, lane]
