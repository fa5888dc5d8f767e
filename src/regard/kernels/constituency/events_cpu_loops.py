"""The loops that find the best binary trees, or draw some, for numba: imported when first called.

Charts are by the first and the last word of a span, and once more by the last and the first, so that all that is
compared or summed lies along rows.
"""

import numpy as np

from regard.kernels.constituency.cpu_loops import LANES, charts, gathered, highest, is_sure, weighed
from regard.kernels.on_cpu import compiled


@compiled
def k_best(first, last, ranked, present, k, out):
    """The k best trees of the rows first to last: which label each span has of those that are ranked, the best first,
    and -1 for what is no span. A tree of a span is one of the best of each of its parts, whose ranks and one, times
    each other, are at most k."""
    labels = ranked.shape[3]
    if k == 1:
        best_of_rows(first, last, ranked[:, :, :, 0], present, out)
        return
    for row in range(first, last):
        out[row] = -1
        words = np.flatnonzero(present[row])
        n = len(words)
        if n == 0:
            continue
        best, best_to = np.full((n, n, k), -np.inf), np.full((n, n, k), -np.inf)
        plans = np.zeros((n, n, k, 4), np.int64)
        pairs, how = np.empty(k), np.zeros((k, 4), np.int64)
        for j in range(n):
            for label in range(min(k, labels)):
                best[j, j, label] = best_to[j, j, label] = ranked[row, words[j], words[j], label]
                plans[j, j, label, 3] = label
            for i in range(j - 1, -1, -1):
                pairs[:] = -np.inf
                for middle in range(i, j):
                    for one in range(k):
                        for other in range(k // (one + 1)):
                            score = best[i, middle, one] + best_to[j, middle + 1, other]
                            if not score > pairs[k - 1]:
                                break
                            at = _inserted(pairs, how, score)
                            how[at, 0], how[at, 1], how[at, 2] = middle, one, other
                for pair in range(k):
                    for label in range(min(labels, k // (pair + 1))):
                        score = pairs[pair] + ranked[row, words[i], words[j], label]
                        if not score > best[i, j, k - 1]:
                            break
                        at = _inserted(best[i, j], plans[i, j], score)
                        plans[i, j, at], plans[i, j, at, 3] = how[pair], label
                best_to[j, i] = best[i, j]
        spans = np.empty((2 * n, 3), np.int64)
        for which in range(k):
            if not best[0, n - 1, which] > -np.inf:
                break
            spans[0] = (0, n - 1, which)
            count = 1
            while count > 0:
                count -= 1
                i, j, rank = spans[count]
                plan = plans[i, j, rank]
                out[row, which, words[i], words[j]] = plan[3]
                if i < j:
                    spans[count] = (i, plan[0], plan[1])
                    spans[count + 1] = (plan[0] + 1, j, plan[2])
                    count += 2


@compiled
def best_of_rows(first, last, scores, present, out):
    """The best trees of the rows first to last, as 0 for each span, by the highest scores of spans, from which the way
    down is read."""
    for start in range(first, last, LANES):
        rows = np.arange(start, min(last, start + LANES))
        places, counts, spans = gathered(rows, scores, present)
        left, right = highest(spans)
        stack = np.empty((2 * len(spans) + 1, 2), np.int64)
        for lane in range(len(rows)):
            tree, words, count = out[rows[lane], 0], places[lane], 0
            tree[:] = -1
            if counts[lane] > 0 and left[0, counts[lane] - 1, lane] > -np.inf:
                stack[0, 0], stack[0, 1], count = 0, counts[lane] - 1, 1
            while count > 0:
                count -= 1
                i, j = stack[count]
                tree[words[i], words[j]] = 0
                split, most = i, -np.inf
                for middle in range(i, j):
                    score = left[i, middle, lane] + right[j, middle + 1, lane]
                    if score > most:
                        split, most = middle, score
                if i < j:
                    stack[count, 0], stack[count, 1] = i, split
                    stack[count + 1, 0], stack[count + 1, 1] = split + 1, j
                    count += 2


@compiled
def _inserted(scores, plans, score):
    """Makes room for a score among those that are in order, and for its plan; where that is."""
    at = len(scores) - 1
    while at > 0 and score > scores[at - 1]:
        scores[at] = scores[at - 1]
        plans[at] = plans[at - 1]
        at -= 1
    scores[at] = score
    return at


@compiled
def samples(first, last, scores, present, noise, out):
    """Trees of the rows first to last, as 1 for each span, by a uniform number for every split, in the order of the
    spans, from the widest to the narrowest and from left to right."""
    for start in range(first, last, LANES):
        rows = np.arange(start, min(last, start + LANES))
        places, counts, weights, common = weighed(rows, scores, present)
        found = np.zeros_like(weights)
        left, right, totals = charts(weights, counts, found)
        for lane in range(len(rows)):
            row, n = rows[lane], counts[lane]
            out[row] = False
            words = places[lane, :n]
            if not is_sure(common[lane], totals[lane], n, found[:, :, lane]):
                _by_logarithms(scores[row], words, noise[row], out[row])
            elif n > 0 and common[lane] > -np.inf:
                _descended(left[:n, :n, lane], right[:n, :n, lane], False, words, noise[row], out[row])


@compiled
def _by_logarithms(scores, words, noise, out):
    """The trees of a row that is not sure."""
    n = len(words)
    left, right, chances = np.empty((n, n)), np.empty((n, n)), np.empty(n)
    for j in range(n):
        left[j, j] = right[j, j] = scores[words[j], words[j]]
        for i in range(j - 1, -1, -1):
            top = _chances(left[i, i:j], right[j, i + 1 : j + 1], chances)
            span = scores[words[i], words[j]] + top + np.log(np.sum(chances[: j - i]))
            left[i, j] = right[j, i] = span if top > -np.inf else -np.inf
    if n > 0 and left[0, n - 1] > -np.inf:
        _descended(left, right, True, words, noise, out)


@compiled
def _descended(left, right, logarithms, words, noise, out):
    """The trees of a row from the whole down to its words, by the sums of spans or by their logarithms."""
    n = len(words)
    chosen, chances = np.empty((n, n), np.bool_), np.empty(n)
    for draw in range(len(noise)):
        chosen[:] = False
        chosen[0, n - 1] = True
        number = 0
        for width in range(n - 1, 0, -1):
            for i in range(n - width):
                j = i + width
                if not chosen[i, j]:
                    continue
                if logarithms:
                    _chances(left[i, i:j], right[j, i + 1 : j + 1], chances)
                else:
                    chances[:width] = left[i, i:j] * right[j, i + 1 : j + 1]
                below = noise[draw, number] * np.sum(chances[:width])
                number += 1
                split, passed = 0, chances[0]
                while passed <= below and split < width - 1:
                    split += 1
                    passed += chances[split]
                chosen[i, i + split] = chosen[i + split + 1, j] = True
        for i in range(n):
            for j in range(i, n):
                out[draw, words[i], words[j]] = chosen[i, j]


@compiled
def _chances(left, right, chances):
    """The exponentials of the sums of both, the largest being 1, and the logarithm of what that was."""
    top = -np.inf
    for split in range(len(left)):
        top = max(top, left[split] + right[split])
    for split in range(len(left)):
        chances[split] = np.exp(left[split] + right[split] - top) if top > -np.inf else 0.0
    return top
