"""The loops of linear chains of two labels, float64, for numba: imported when they are first called.

Of two labels only the odds matter, one number a position. `gaps` (T,) are the scores of label 1 less those of label 0,
`factors` the exponentials of the transitions. Forward come the odds of each label given what stands before, and with
them the chances `low` and `high` of label 1 given that the next position has label 0 or label 1; backward these are
weighed. Every sum is of positive numbers.
"""

import math

import numpy as np

from regard.kernels.on_cpu import compiled

SMALL = 1e-100
LARGE = 1e100


@compiled
def filtered(gaps, factors, present, odds, low, high):
    """The odds of label 1 at each position given all up to it, and its chances given the label that follows; False
    where they leave the range of numbers in which that is exact."""
    stay_0, up, down, stay_1 = factors[0, 0], factors[0, 1], factors[1, 0], factors[1, 1]
    before = -1.0
    for t in range(len(gaps)):
        if not present[t]:
            before = -1.0
            continue
        now = math.exp(gaps[t])
        if before >= 0:
            to_0, to_1 = stay_0 + down * before, up + stay_1 * before
            if not (to_0 >= SMALL and to_1 >= SMALL):
                return False
            now *= to_1 / to_0
            low[t - 1], high[t - 1] = down * before / to_0, stay_1 * before / to_1
        if not (now >= SMALL and now <= LARGE):
            return False
        odds[t] = before = now
    return True


@compiled
def log_sum(nodes, factors, highest, present, odds):
    """The logarithm of Z, where the transitions have `highest` as their largest score."""
    total, product = 0.0, 1.0
    length = len(odds)
    for t in range(length):
        if not present[t]:
            continue
        total += nodes[t, 0]
        if t > 0 and present[t - 1]:
            total += highest
            product *= factors[0, 0] + factors[1, 0] * odds[t - 1]
        if t + 1 == length or not present[t + 1]:
            product *= 1 + odds[t]
        if not (product >= SMALL and product <= LARGE):
            total += math.log(product)
            product = 1.0
    return total + math.log(product)


@compiled
def smoothed(present, odds, low, high, labels, pairs):
    """The chances (T, 2) of the labels, and how often each transition (2, 2) is expected."""
    from_0_to_0, from_0_to_1, from_1_to_0, from_1_to_1 = 0.0, 0.0, 0.0, 0.0
    later = -1.0
    for t in range(len(odds) - 1, -1, -1):
        if not present[t]:
            later = -1.0
            labels[t, 0], labels[t, 1] = 0.0, 0.0
            continue
        if later >= 0:
            to_0, to_1 = (1 - later) * low[t], later * high[t]
            from_0_to_0 += (1 - later) * (1 - low[t])
            from_0_to_1 += later * (1 - high[t])
            from_1_to_0 += to_0
            from_1_to_1 += to_1
            later = to_0 + to_1
        else:
            later = odds[t] / (1 + odds[t])
        labels[t, 0], labels[t, 1] = 1 - later, later
    pairs[0, 0], pairs[0, 1], pairs[1, 0], pairs[1, 1] = from_0_to_0, from_0_to_1, from_1_to_0, from_1_to_1


@compiled
def tangents(present, odds, low, high, along, turn, slopes, moved, moved_pairs):
    """How fast both move along a direction of the labels (T, 2) and of the transitions (2, 2); `slopes` (T,) become
    those of the logarithms of the odds."""
    at_0, at_1, ahead = turn[1, 0] - turn[0, 0], turn[1, 1] - turn[0, 1], turn[0, 1] - turn[0, 0]
    for t in range(len(odds)):
        slopes[t] = along[t, 1] - along[t, 0]
        if t > 0 and present[t] and present[t - 1]:
            before = slopes[t - 1]
            slopes[t] += ahead + high[t - 1] * (before + at_1) - low[t - 1] * (before + at_0)
    from_0_to_0, from_0_to_1, from_1_to_0, from_1_to_1 = 0.0, 0.0, 0.0, 0.0
    later, change = -1.0, 0.0
    for t in range(len(odds) - 1, -1, -1):
        if not present[t]:
            later = -1.0
            moved[t, 0], moved[t, 1] = 0.0, 0.0
            continue
        if later >= 0:
            to_0 = low[t] * ((1 - low[t]) * (slopes[t] + at_0) * (1 - later) - change)
            to_1 = high[t] * ((1 - high[t]) * (slopes[t] + at_1) * later + change)
            from_0_to_0 -= change + to_0
            from_0_to_1 += change - to_1
            from_1_to_0 += to_0
            from_1_to_1 += to_1
            later = (1 - later) * low[t] + later * high[t]
            change = to_0 + to_1
        else:
            later = odds[t] / (1 + odds[t])
            change = later / (1 + odds[t]) * slopes[t]
        moved[t, 0], moved[t, 1] = -change, change
    moved_pairs[0, 0], moved_pairs[0, 1], moved_pairs[1, 0], moved_pairs[1, 1] = (
        from_0_to_0, from_0_to_1, from_1_to_0, from_1_to_1,
    )  # fmt: skip


@compiled
def differences(nodes, gaps):
    """The scores (T, 2) of label 1 less those of label 0."""
    for t in range(len(gaps)):
        gaps[t] = np.float64(nodes[t, 1]) - np.float64(nodes[t, 0])
