"""The loops that choose a dependency tree, the best ones or a random one, for numba: imported when first called.

Inside, a sentence is the n words that are present, and `arcs` (n, n) their scores, the roots' on the diagonal.
"""

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.tree.cpu_loops import inside, is_sure
from regard.kernels.tree.elimination_cpu_loops import eliminated
from regard.kernels.tree.walks_cpu_loops import walked, walks

NONE = -np.inf
SMALLEST = 1e-150
"""A chance below this is computed by its logarithm."""


@compiled
def k_best(first, last, scores, present, projective, single_root, out):
    """out[n, :, :] = the best trees of the rows first to last, the best first, -1 for want of any."""
    for row in range(first, last):
        out[row] = -1
        words = np.flatnonzero(present[row])
        count = _partitioned(_packed(scores[row], words), projective, single_root, out[row, :, : len(words)])
        for rank in range(count):
            _unpack(words, out[row, rank])


@compiled
def samples(first, last, scores, present, uniform, projective, single_root, out):
    """out[n, s, :] = random trees of the rows first to last, each by its own uniform numbers, 2 K of them."""
    for row in range(first, last):
        out[row] = -1
        words = np.flatnonzero(present[row])
        arcs = _packed(scores[row], words)
        charts = _soft_charts(arcs, single_root) if projective else np.empty((0, 0, 0))
        roots = _root_chances(arcs) if single_root and not projective else np.empty(0)
        sums = np.empty((0, 0)) if projective or single_root else walks(arcs, np.diag(arcs), -1)
        heads = np.empty(len(words), np.int64)
        for draw in range(out.shape[1]):
            if projective:
                drawn = _descended(arcs, charts, single_root, True, uniform[row, draw], heads)
            else:
                drawn = _drawn(arcs, single_root, roots, sums, uniform[row, draw], heads)
            if drawn:
                out[row, draw, : len(words)] = heads
                _unpack(words, out[row, draw])


@compiled
def _packed(scores, words):
    arcs = np.empty((len(words), len(words)))
    for i in range(len(words)):
        for j in range(len(words)):
            arcs[i, j] = scores[words[i], words[j]]
    return arcs


@compiled
def _unpack(words, out):
    """The heads of the words, in place, as those of the whole sentence."""
    heads = out[: len(words)].copy()
    out[:] = -1
    for i in range(len(words)):
        out[words[i]] = words[heads[i]]


@compiled
def _partitioned(arcs, projective, single_root, out):
    """The best trees by splitting, each time that one was found, all others of its set into sets that agree with it up
    to a word whose head differs (Lawler 1972); returns how many there are."""
    wanted, n = out.shape
    trees = np.empty((wanted * n + 1, n), np.int64)
    totals = np.full(wanted * n + 1, NONE)
    since = np.zeros(wanted * n + 1, np.int64)  # the words before this one have the heads of the tree
    forbidden = np.zeros((wanted * n + 1, n), np.bool_)  # and this one none of these
    found = 1 if _best(arcs, projective, single_root, trees[0]) else 0
    totals[0] = _score(arcs, trees[0]) if found else NONE
    for rank in range(wanted):
        at = np.argmax(totals) if found else 0
        if not totals[at] > NONE:
            return rank
        out[rank] = trees[at]
        totals[at] = NONE
        if rank + 1 == wanted:
            break
        limited = arcs.copy()
        for word in range(since[at]):
            _force(limited, word, trees[at, word])
        for word in range(since[at], n):
            barred = forbidden[found]
            barred[:] = forbidden[at] & (word == since[at])
            barred[trees[at, word]] = True
            for head in range(n):
                limited[word, head] = NONE if barred[head] else arcs[word, head]
            if _best(limited, projective, single_root, trees[found]):
                totals[found] = _score(arcs, trees[found])
                since[found] = word
                found += 1
            _force(limited, word, trees[at, word])
            limited[word, trees[at, word]] = arcs[word, trees[at, word]]
    return wanted


@compiled
def _force(arcs, word, head):
    for other in range(len(arcs)):
        if other != head:
            arcs[word, other] = NONE


@compiled
def _score(arcs, heads):
    total = 0.0
    for word in range(len(heads)):
        total += arcs[word, heads[word]]
    return total


@compiled
def _best(arcs, projective, single_root, heads):
    """Whether there is a tree, and its heads."""
    if projective:
        return _descended(arcs, _charts(arcs, False), single_root, False, np.empty(0), heads)
    return _contracted(arcs, single_root, heads)


@compiled
def _total(terms, count, soft):
    """The logarithm of the sum of the exponentials, or the largest."""
    largest = NONE
    for k in range(count):
        largest = max(largest, terms[k])
    if not soft or largest == NONE:
        return largest
    total = 0.0
    for k in range(count):
        total += np.exp(terms[k] - largest)
    return largest + np.log(total)


@compiled
def _chosen(terms, count, soft, uniform):
    """One of the terms: drawn in proportion to the exponential, never one of -inf, or the largest."""
    best = 0
    for k in range(count):
        if terms[k] > terms[best]:
            best = k
    if not soft or terms[best] == NONE:
        return best
    total = 0.0
    for k in range(count):
        total += np.exp(terms[k] - terms[best])
    rest = uniform * total
    for k in range(count):
        rest -= np.exp(terms[k] - terms[best])
        if rest < 0 and terms[k] > NONE:
            return k
    return best


@compiled
def _charts(arcs, soft):
    """The spans of Eisner 1996, [0, i, j] with head i, [1, i, j] with head j, and both with an arc between them, whose
    head is i in [2, i, j], or j in [3, i, j]: the logarithms of the sums over their trees, or the best."""
    n = len(arcs)
    charts = np.full((4, n, n), NONE)
    right, left, arc_right, arc_left = charts[0], charts[1], charts[2], charts[3]
    terms = np.empty(n)
    for i in range(n):
        right[i, i] = left[i, i] = 0.0
    for width in range(1, n):
        for i in range(n - width):
            j = i + width
            for k in range(width):
                terms[k] = right[i, i + k] + left[i + k + 1, j]
            both = _total(terms, width, soft)
            arc_right[i, j] = both + arcs[j, i]
            arc_left[i, j] = both + arcs[i, j]
            for k in range(width):
                terms[k] = arc_right[i, i + k + 1] + right[i + k + 1, j]
            right[i, j] = _total(terms, width, soft)
            for k in range(width):
                terms[k] = left[i, i + k] + arc_left[i + k, j]
            left[i, j] = _total(terms, width, soft)
    return charts


@compiled
def _soft_charts(arcs, single_root):
    """The same of sums; what all arcs of a word have in common is taken out of them in place. By numbers where these
    are sure, of which the logarithms are taken, else in logarithms throughout."""
    n = len(arcs)
    if n == 0:
        return np.empty((4, 0, 0))
    for i in range(n):
        best = arcs[i].max()
        if abs(best) < np.inf:
            arcs[i] -= best
    spans, _, _, log_z = inside(np.exp(arcs), single_root)
    if not abs(log_z) < np.inf:
        return _charts(arcs, True)
    right, _, left, _, arc_right, arc_left_to = spans
    charts = np.full((4, n, n), NONE)
    for i in range(n):
        for j in range(i, n):
            charts[0, i, j], charts[1, i, j] = np.log(right[i, j]), np.log(left[i, j])
            charts[2, i, j], charts[3, i, j] = np.log(arc_right[i, j]), np.log(arc_left_to[j, i])
    return charts


@compiled
def _descended(arcs, charts, single_root, soft, uniform, heads):
    """Whether there is a tree, and its heads, from the whole sentence down to its words."""
    n = len(arcs)
    right, left, arc_right, arc_left = charts[0], charts[1], charts[2], charts[3]
    terms, roots, totals = np.empty(n), np.empty(n), np.full(n + 1, NONE)
    totals[0] = 0.0
    for word in range(n):
        starts = 1 if single_root else word + 1
        for i in range(starts):
            terms[i] = totals[i] + left[i, word]
        roots[word] = _total(terms, starts, soft) + arcs[word, word]
        for r in range(word + 1):
            terms[r] = roots[r] + right[r, word]
        totals[word + 1] = _total(terms, word + 1, soft)
    if not totals[n] > NONE:
        return n == 0
    stack = np.empty((2 * n + 2, 3), np.int64)  # what remains to be split: which chart, from, to
    depth, used, end = 0, 0, n
    while end > 0:
        for r in range(end):
            terms[r] = roots[r] + right[r, end - 1]
        root = _chosen(terms, end, soft, uniform[used] if soft else 0.0)
        starts = 1 if single_root else root + 1
        for i in range(starts):
            terms[i] = totals[i] + left[i, root]
        start = _chosen(terms, starts, soft, uniform[used + 1] if soft else 0.0)
        used += 2
        heads[root] = root
        stack[depth, 0], stack[depth, 1], stack[depth, 2] = 0, root, end - 1
        stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = 1, start, root
        depth += 2
        end = start
        while depth > 0:
            depth -= 1
            chart, i, j = stack[depth]
            width = j - i
            if width == 0:
                continue
            for k in range(width):
                if chart == 0:
                    terms[k] = arc_right[i, i + k + 1] + right[i + k + 1, j]
                elif chart == 1:
                    terms[k] = left[i, i + k] + arc_left[i + k, j]
                else:
                    terms[k] = right[i, i + k] + left[i + k + 1, j]
            middle = i + _chosen(terms, width, soft, uniform[used] if soft else 0.0)
            used += 1
            if chart == 0:
                heads[middle + 1] = i
                one, other, arc = 2, 0, middle + 1
            elif chart == 1:
                heads[middle] = j
                one, other, arc = 1, 2, middle
            else:
                one, other, arc = 0, 1, middle
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = one, i, arc
            stack[depth + 1, 0], stack[depth + 1, 1] = other, arc + 1 if chart == 2 else arc
            stack[depth + 1, 2] = j
            depth += 2
    return True


@compiled
def _contracted(arcs, single_root, heads):
    """Whether there is a tree of any shape, and the heads of the best (Chu and Liu 1965; Edmonds 1967).

    Words whose best heads go round are contracted into one, which takes the place of the first of them. If there should
    be one root only, a tree is the better for fewer of them before all else.
    """
    n = len(arcs)
    score, roots, child, parent = _graph(arcs, single_root)
    node, above = np.arange(n), np.full(2 * n, -1)  # the number of the one in each place, and of what it became part
    arc_child, arc_parent = np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)  # the arc to the head of each
    there, best, nodes = np.ones(n, np.bool_), np.full(n, -1), n
    round_ = 0
    while round_ >= 0:
        for i in range(n):
            if there[i]:
                if best[i] < 0:
                    best[i] = _best_head(i, score, roots, there)
                if best[i] < 0:
                    return False
                arc_child[node[i]], arc_parent[node[i]] = child[i, best[i]], parent[i, best[i]]
        round_ = _goes_round(best, there)
        if round_ >= 0:
            whole = _contract(round_, best, there, score, roots, child, parent, node, above, nodes)
            node[whole], best[whole] = nodes, -1
            nodes += 1
    done = np.zeros(nodes, np.bool_)
    count = 0
    for x in range(nodes - 1, -1, -1):
        if not done[x]:
            word = arc_child[x]
            heads[word] = word if arc_parent[x] == n else arc_parent[x]
            count += arc_parent[x] == n
            while word != x:  # within x this word has its head outside
                done[word] = True
                word = above[word]
    return count <= 1 or not single_root


@compiled
def _graph(arcs, single_root):
    """The score of each arc, the last head being the root, how many roots it makes, and its two words."""
    n = len(arcs)
    score, roots = np.full((n, n + 1), NONE), np.zeros((n, n + 1), np.int64)
    child, parent = np.empty((n, n + 1), np.int64), np.empty((n, n + 1), np.int64)
    for i in range(n):
        score[i, :n], score[i, i], score[i, n] = arcs[i], NONE, arcs[i, i]
        roots[i, n] = single_root
        child[i] = i
        parent[i] = np.arange(n + 1)
    return score, roots, child, parent


@compiled
def _better(score, roots, other_score, other_roots):
    if score == NONE or other_score == NONE:
        return score > other_score
    return roots < other_roots or (roots == other_roots and score > other_score)


@compiled
def _best_head(word, score, roots, there):
    best = -1
    for j in range(len(there) + 1):
        if score[word, j] == NONE or j == word or (j < len(there) and not there[j]):
            continue
        if best < 0 or _better(score[word, j], roots[word, j], score[word, best], roots[word, best]):
            best = j
    return best


@compiled
def _goes_round(best, there):
    """One of the words from which the way from head to head comes back to it, or -1."""
    n = len(best)
    since = np.full(n, -1)
    for start in range(n):
        word = start
        while word < n and there[word] and since[word] < 0:
            since[word] = start
            word = best[word]
        if word < n and there[word] and since[word] == start:
            return word
    return -1


@compiled
def _contract(word, best, there, score, roots, child, parent, node, above, nodes):
    """Makes one of all that the way from the word goes through, in the place of the first."""
    n = len(best)
    inside = np.zeros(n, np.bool_)
    while not inside[word]:
        inside[word] = True
        above[node[word]] = nodes
        word = best[word]
    members = np.flatnonzero(inside)
    whole = members[0]
    there[members[1:]] = False
    for j in range(n + 1):
        if j < n and (inside[j] or not there[j]):
            continue
        via, via_score, via_roots = whole, NONE, 0
        for v in members:  # who leaves its head for j
            gain = score[v, j] - score[v, best[v]]
            more = roots[v, j] - roots[v, best[v]]
            if _better(gain, more, via_score, via_roots):
                via, via_score, via_roots = v, gain, more
        child[whole, j], parent[whole, j] = child[via, j], parent[via, j]
        score[whole, j], roots[whole, j] = via_score, via_roots
        if j == n:
            continue
        of = whole
        for v in members:  # whose dependent j is
            if _better(score[j, v], roots[j, v], score[j, of], roots[j, of]):
                of = v
        child[j, whole], parent[j, whole] = child[j, of], parent[j, of]
        score[j, whole], roots[j, whole] = score[j, of], roots[j, of]
        if best[j] < n and inside[best[j]]:
            best[j] = whole
    return whole


@compiled
def _drawn(arcs, single_root, roots, sums, uniform, heads):
    """Whether there is a tree of any shape, and the heads of a random one, by walks, of which `sums` are known unless
    there is a single root, or else drawn word after word.

    The head of a word is j in proportion to the weight of that arc times the chance that a walk along the arcs from j
    comes to the root before it comes to the word; the word then becomes one with its head (the chain rule for what
    Colbourn, Myrvold and Neufeld 1996 draw by determinants).
    """
    n = len(arcs)
    weights = arcs.copy()  # logarithms, to what each word has become one with
    goal = np.empty(n)
    if n == 0:
        return True
    root = _chosen(roots, n, True, uniform[n]) if single_root else 0
    if single_root and roots[root] == NONE:
        return False
    for i in range(n):
        goal[i] = arcs[i, root] if single_root else arcs[i, i]
    if single_root:
        sums = walks(arcs, goal, root)
    if len(sums) > 0:
        walked(sums, root if single_root else -1, uniform, heads)
        return True
    open_ = np.ones(n, np.bool_)
    end = np.arange(n)  # the word that each has become one with, n for the root
    terms, chances = np.empty(n), np.empty(n + 1)
    if single_root:
        heads[root], open_[root], end[root] = root, False, n
    for word in range(n):
        if not open_[word]:
            continue
        open_[word] = False
        _chances(weights, goal, open_, word, chances)
        chances[word], chances[n] = NONE, 0.0
        for j in range(n):
            terms[j] = arcs[word, j] + chances[end[j]]
        if not single_root:
            terms[word] = arcs[word, word]
        head = _chosen(terms, n, True, uniform[word])
        if terms[head] == NONE:
            return False
        heads[word] = head
        to = n if head == word else end[head]
        for i in range(n):
            if end[i] == word:
                end[i] = to
            if open_[i] and to == n:
                goal[i] = _log_sum(goal[i], weights[i, word])
            elif open_[i]:
                weights[i, to] = _log_sum(weights[i, to], weights[i, word])
    return True


@compiled
def _log_sum(one, other):
    largest = max(one, other)
    if largest == NONE:
        return NONE
    return largest + np.log1p(np.exp(min(one, other) - largest))


@compiled
def _chances(weights, goal, open_, word, chances):
    """The logarithm of the chance of each open word that a walk from it comes to the goal before it comes to the word,
    the steps in proportion to the weights, whose logarithms are given."""
    words = np.flatnonzero(open_)
    m = len(words)
    steps, found = np.empty((m, m + 2)), np.empty(m)  # to the open words, to the word, to the goal
    for a in range(m):
        for b in range(m):
            steps[a, b] = weights[words[a], words[b]]
        steps[a, a], steps[a, m], steps[a, m + 1] = NONE, weights[words[a], word], goal[words[a]]
    if not _walked(steps, found):
        _walked_slowly(steps, found)
    for a in range(m):
        chances[words[a]] = found[a]


@compiled
def _walked(logs, found):
    """The chances by eliminating one word after another, then back; False where they are too small for numbers."""
    m = len(logs)
    steps = np.empty((m, m + 2))
    for a in range(m):
        best = logs[a].max()
        for b in range(m + 2):
            steps[a, b] = np.exp(logs[a, b] - best)
    for a in range(m - 1, -1, -1):
        row = steps[a]
        total = row[m] + row[m + 1]
        for b in range(a):
            total += row[b]
        if not total > SMALLEST:
            return False
        for b in range(m + 2):
            row[b] /= total
        for c in range(a):
            via = steps[c, a]
            for b in range(a):
                steps[c, b] += via * row[b]
            steps[c, m] += via * row[m]
            steps[c, m + 1] += via * row[m + 1]
    for a in range(m):
        found[a] = steps[a, m + 1]
        for b in range(a):
            found[a] += steps[a, b] * found[b]
        if not found[a] > SMALLEST:
            return False
    for a in range(m):
        found[a] = np.log(found[a])
    return True


@compiled
def _walked_slowly(steps, found):
    """The same in logarithms, in place of the steps."""
    m = len(steps)
    terms = np.empty(m + 1)
    for a in range(m - 1, -1, -1):
        row = steps[a]
        row[a:m] = NONE
        total = _total(row, m + 2, True)
        for b in range(m + 2):
            row[b] = row[b] - total if total > NONE else NONE
        for c in range(a):
            via = steps[c, a]
            for b in range(m + 2):
                if via > NONE and row[b] > NONE:
                    steps[c, b] = _log_sum(steps[c, b], via + row[b])
    for a in range(m):
        for b in range(a):
            terms[b] = steps[a, b] + found[b]
        terms[a] = steps[a, m + 1]
        found[a] = _total(terms, a + 1, True)


@compiled
def _root_chances(arcs):
    """The logarithm of how probable each word is as the only root, but for a constant: by numbers where these are sure,
    else in logarithms."""
    n = len(arcs)
    weights, marginals = np.empty((n, n)), np.zeros((n, n))
    for i in range(n):
        weights[i] = np.exp(arcs[i] - arcs[i].max())
    if n > 0 and is_sure(eliminated(weights, True, marginals), marginals):
        return np.log(np.maximum(np.diag(marginals), 0.0))
    return _roots(arcs)


@compiled
def _roots(arcs):
    """The logarithm of how probable each word is as the only root, but for a constant: its score times how long a walk
    along the arcs is at it (Leighton and Rivest 1986), by elimination without a subtraction (Grassmann et al. 1985)."""
    n = len(arcs)
    steps, totals = arcs.copy(), np.empty(n)
    last = 0  # the walk ends there or among those after it
    for a in range(n - 1, 0, -1):
        totals[a] = _total(steps[a], a, True)
        if totals[a] == NONE:
            last = a
            break
        for c in range(a):
            if steps[c, a] > NONE:
                for b in range(a):
                    if steps[a, b] > NONE:
                        steps[c, b] = _log_sum(steps[c, b], steps[c, a] + steps[a, b] - totals[a])
    stays, terms = np.full(n, NONE), np.empty(n)
    for a in range(last, n):
        for c in range(a):
            terms[c] = stays[c] + steps[c, a]
        stays[a] = 0.0 if a == last else _total(terms, a, True) - totals[a]
    for a in range(n):
        terms[a] = arcs[a, a] + stays[a]
    return terms
