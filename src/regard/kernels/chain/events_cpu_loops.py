"""The loops that find the best labellings of linear chains, and draw some, for numba: imported when first called.

Rows and transitions are those of `cpu_loops`.
"""

import numpy as np

from regard.kernels.chain.cpu_loops import SMALL, exponentials, forward, log_sum, room, scaled_forward
from regard.kernels.on_cpu import compiled


@compiled
def draw(first, last, nodes, transitions, present, noise, drawn):
    """Labellings (N, draws, T), each position by its chance given the one after it, for uniform noise of that shape."""
    length, states = nodes.shape[1:]
    (_, tables, _), links, factors, highest = room(length, states, transitions.shape[1])
    likely, labels, chances = tables[0], tables[1], np.empty(states)
    drawn[first:last] = -1
    for n in range(first, last):
        if n == first or len(transitions) > 1:
            links[:] = transitions[min(n, len(transitions) - 1)]
            exponentials(links, factors, highest)
        total = scaled_forward(nodes[n], factors, highest, present[n], likely, labels)
        exact = total > -np.inf and drawn_of_row(factors, present[n], labels, chances, noise[n], drawn[n])
        if not exact:
            drawn_by_logarithms(nodes[n], links, present[n], chances, noise[n], drawn[n])


@compiled
def drawn_of_row(factors, present, labels, chances, noise, drawn):
    """Whether all draws of a row could be made by sums of probabilities."""
    length, states = labels.shape
    for s in range(len(noise)):
        for t in range(length - 1, -1, -1):
            if not present[t]:
                continue
            total = 0.0
            if t + 1 < length and present[t + 1]:
                links, after = factors[min(t + 1, len(factors)) - 1], drawn[s, t + 1]
                for i in range(states):
                    chances[i] = labels[t, i] * links[i, after]
                    total += chances[i]
            else:
                chances[:], total = labels[t], 1.0
            if not total >= SMALL:
                return False
            drawn[s, t] = pick(chances, noise[s, t] * total)
    return True


@compiled
def drawn_by_logarithms(nodes, transitions, present, chances, noise, drawn):
    """The draws of a row by the logarithms of sums; -1 throughout where no labelling is possible."""
    before, still, no_pairs = np.empty(nodes.shape), np.zeros(nodes.shape), np.zeros(transitions.shape)
    log_z, _ = forward(nodes, transitions, present, still, no_pairs, before, np.empty(nodes.shape))
    drawn[:] = -1
    for s in range(len(noise) if log_z != -np.inf else 0):
        for t in range(len(nodes) - 1, -1, -1):
            if present[t]:
                linked = t + 1 < len(nodes) and present[t + 1]
                step = min(t + 1, len(transitions)) - 1
                log_sum(before[t] + transitions[step, :, drawn[s, t + 1]] if linked else before[t], chances)
                drawn[s, t] = pick(chances, noise[s, t])


@compiled
def pick(chances, level):
    """Where the sum of the chances passes the level, at a place that has one."""
    passed, found = 0.0, 0
    for i in range(len(chances)):
        if chances[i] > 0:
            found = i
            passed += chances[i]
            if passed > level:
                return found
    return found


@compiled
def best(first, last, nodes, transitions, present, found):
    """The labellings (N, k, T) with the highest scores, best first, -1 throughout where there are fewer.

    Of the k best ones, an absent position, and those before the first and after the last, has one state, number 0.
    """
    (length, states), k = nodes.shape[1:], found.shape[1]
    if k == 1:
        found[first:last], highest = -1, np.empty((length, states))
        for n in range(first, last):
            best_of_row(nodes[n], transitions[min(n, len(transitions) - 1)], present[n], highest, found[n, 0])
        return
    origin = np.empty((length + 1, states, k), dtype=np.int64)  # state * k + rank of the one before
    unlinked = np.zeros(states)
    found[first:last] = -1
    for n in range(first, last):
        into = transitions[min(n, len(transitions) - 1)].transpose(0, 2, 1).copy()
        scores, ahead = np.full((states, k), -np.inf), np.full((states, k), -np.inf)
        scores[0, 0] = 0.0
        for t in range(length + 1):
            here, behind = t < length and present[n, t], t > 0 and present[n, t - 1]
            ahead[:] = -np.inf
            step = min(t, len(into)) - 1
            for j in range(states if here else 1):
                score = nodes[n, t, j] if here else 0.0
                links = into[step, j] if here and behind else unlinked[: states if behind else 1]
                merge(scores, links, score, ahead[j], origin[t, j])
            scores, ahead = ahead, scores
        for rank in range(k):
            if scores[0, rank] == -np.inf:
                break
            state, place = 0, rank
            for t in range(length, 0, -1):
                state, place = divmod(origin[t, state, place], k)
                if present[n, t - 1]:
                    found[n, rank, t - 1] = state


@compiled
def best_of_row(nodes, transitions, present, highest, found):
    """The best labelling (T,), by the highest score up to each label, from which the way back is read."""
    length, states = nodes.shape
    total = 0.0
    for t in range(length):
        if not present[t]:
            continue
        here = highest[t]
        if t > 0 and present[t - 1]:
            links, before = transitions[min(t, len(transitions)) - 1], highest[t - 1]
            here[:] = -np.inf
            for i in range(states):
                for j in range(states):
                    score = before[i] + links[i, j]
                    here[j] = score if score > here[j] else here[j]
        else:
            here[:] = total
        for j in range(states):
            here[j] += nodes[t, j]
        if t + 1 == length or not present[t + 1]:
            total = -np.inf
            for j in range(states):
                total = here[j] if here[j] > total else total
    if not total > -np.inf:
        return
    for t in range(length - 1, -1, -1):
        if present[t]:
            linked, most = t + 1 < length and present[t + 1], -np.inf
            links = transitions[min(t + 1, len(transitions)) - 1]
            for i in range(states):
                score = highest[t, i] + links[i, found[t + 1]] if linked else highest[t, i]
                if score > most:
                    most, found[t] = score, i


@compiled
def merge(scores, links, score, merged, origin):
    """The k best of the states' k best scores, each state's in order, with its link, and where they are from: O(S k)
    for each that is among the best of those before it."""
    k = len(merged)
    for i in range(len(links)):
        for rank in range(k):
            found = scores[i, rank] + links[i] + score
            if not found > merged[k - 1]:
                break
            at = k - 1
            while at > 0 and found > merged[at - 1]:
                merged[at], origin[at] = merged[at - 1], origin[at - 1]
                at -= 1
            merged[at], origin[at] = found, i * k + rank
