"""The loops that draw a dependency tree of any shape by walks from head to head, for numba: imported when first called.

From each word that is not in the tree yet a walk steps to heads in proportion to the weights of their arcs until it
comes to what is; without its circles it then belongs to the tree (Wilson 1996, figure 1).
"""

import numpy as np

from regard.kernels.on_cpu import compiled

SMALLEST = 1e-150
"""A chance below this may be wrong."""
STEP, ONE, OTHER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""The numbers of SplitMix (Steele, Lea and Flood 2014), which makes as many random ones as walks take of two."""


@compiled
def walks(arcs, goal, root):
    """The sums of the chances of the heads of each word, where its own place is that of the end of a walk, whose scores
    are the `goal` (n,), and the `root` is no head; no rows at all where a walk can be expected to be long."""
    n = len(arcs)
    steps, ends, sums = np.zeros((n, n)), np.empty(n), np.empty((n, n))
    for i in range(n):
        best = goal[i]
        for j in range(n):
            best = arcs[i, j] if j != i and j != root and arcs[i, j] > best else best
        ends[i] = np.exp(goal[i] - best)
        total = ends[i]
        for j in range(n):
            if j != i and j != root:
                steps[i, j] = np.exp(arcs[i, j] - best)
                total += steps[i, j]
        passed = 0.0
        for j in range(n):
            steps[i, j] /= total
            passed += ends[i] / total if j == i else steps[i, j]
            sums[i, j] = passed
        ends[i] /= total
    return sums if is_near(steps, ends, root) else sums[:0]


@compiled
def is_near(steps, ends, root):
    """Whether a walk is expected to take fewer steps than there are arcs, from any word: by eliminating one word after
    another, and back."""
    n = len(steps)
    costs = np.ones(n)
    for a in range(n - 1, -1, -1):
        if a == root:
            continue
        leaves = ends[a]
        for b in range(a):
            leaves += steps[a, b]
        if not leaves > SMALLEST:
            return False
        ends[a] /= leaves
        costs[a] /= leaves
        for b in range(a):
            steps[a, b] /= leaves
        for c in range(a):
            via = steps[c, a]
            for b in range(a):
                steps[c, b] += via * steps[a, b]
            ends[c] += via * ends[a]
            costs[c] += via * costs[a]
    for a in range(n):
        if a != root:
            for b in range(a):
                costs[a] += steps[a, b] * costs[b]
            if not costs[a] < n * n + 1:
                return False
    return True


@compiled
def walked(sums, root, uniform, heads):
    """The heads of a random tree; of all words that are roots themselves, if the `root` is below zero."""
    n = len(sums)
    state = np.uint64(uniform[0] * 2.0**53) * STEP + np.uint64(uniform[1] * 2.0**53)
    inside = np.zeros(n, np.bool_)
    if root >= 0:
        heads[root], inside[root] = root, True
    for start in range(n):
        word = start
        while not inside[word]:
            state += STEP
            bits = (state ^ (state >> np.uint64(30))) * ONE
            bits = (bits ^ (bits >> np.uint64(27))) * OTHER
            level = np.float64((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
            head = min(np.searchsorted(sums[word], level * sums[word, n - 1], side="right"), n - 1)
            if head == word:
                heads[word] = root if root >= 0 else word
                break
            heads[word] = head
            word = head
        word = start
        while not inside[word]:
            inside[word] = True
            word = heads[word]
