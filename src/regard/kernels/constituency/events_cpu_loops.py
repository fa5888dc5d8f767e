"""The loops that find the best binary trees, or draw some, for numba: imported when first called.

Charts are by the first and the last word of a span, and once more by the last and the first, so that all that is
compared or summed lies along rows. All is in logarithms.
"""

import numpy as np

from regard.kernels.on_cpu import compiled


@compiled
def k_best(first, last, ranked, present, k, out):
    """The k best trees of the rows first to last: which label each span has of those that are ranked, the best first,
    and -1 for what is no span. A tree of a span is one of the best of each of its parts, whose ranks and one, times
    each other, are at most k."""
    labels = ranked.shape[3]
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
    draws = noise.shape[1]
    for row in range(first, last):
        out[row] = False
        words = np.flatnonzero(present[row])
        n = len(words)
        if n == 0:
            continue
        left, right, chances = np.empty((n, n)), np.empty((n, n)), np.empty(n)
        for j in range(n):
            left[j, j] = right[j, j] = scores[row, words[j], words[j]]
            for i in range(j - 1, -1, -1):
                top = _chances(left[i, i:j], right[j, i + 1 : j + 1], chances)
                span = scores[row, words[i], words[j]] + top + np.log(np.sum(chances[: j - i]))
                left[i, j] = right[j, i] = span if top > -np.inf else -np.inf
        if not left[0, n - 1] > -np.inf:
            continue
        chosen = np.empty((n, n), np.bool_)
        for draw in range(draws):
            chosen[:] = False
            chosen[0, n - 1] = True
            number = 0
            for width in range(n - 1, 0, -1):
                for i in range(n - width):
                    j = i + width
                    if not chosen[i, j]:
                        continue
                    _chances(left[i, i:j], right[j, i + 1 : j + 1], chances)
                    below = noise[row, draw, number] * np.sum(chances[:width])
                    number += 1
                    split, passed = 0, chances[0]
                    while passed <= below and split < width - 1:
                        split += 1
                        passed += chances[split]
                    chosen[i, i + split] = chosen[i + split + 1, j] = True
            for i in range(n):
                for j in range(i, n):
                    out[row, draw, words[i], words[j]] = chosen[i, j]


@compiled
def _chances(left, right, chances):
    """The exponentials of the sums of both, the largest being 1, and the logarithm of what that was."""
    top = -np.inf
    for split in range(len(left)):
        top = max(top, left[split] + right[split])
    for split in range(len(left)):
        chances[split] = np.exp(left[split] + right[split] - top) if top > -np.inf else 0.0
    return top
