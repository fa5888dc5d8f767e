"""The loops that find the best segmentations into labelled runs, and draw some, for numba: imported when first called.

Rows and scores are those of `cpu_loops`.
"""

import numpy as np

from regard.kernels.chain.cpu_loops import log_sum as softmax
from regard.kernels.chain.events_cpu_loops import merge, pick
from regard.kernels.on_cpu import compiled
from regard.kernels.semi_markov.cpu_loops import forward, load, room


@compiled
def draw(first, last, nodes, transitions, durations, present, noise, drawn):
    """Labels (N, draws, T), run after run from the last one: its label given that of the run after it, and its length
    given its label, for two uniform numbers at the position where it ends."""
    length, states = nodes.shape[1:]
    scores, between, lengths = room(nodes, durations)
    opened, closed = np.empty((length, states)), np.empty((length, states))
    terms, chances = np.empty(lengths.shape[1]), np.empty(states)
    spans = np.empty(lengths.shape[1])
    drawn[first:last] = -1
    for n in range(first, last):
        load(n, nodes, transitions, durations, scores, between, lengths)
        if forward(scores, between, lengths, present[n], opened, closed) == -np.inf:
            continue
        for d in range(noise.shape[1]):
            t = length - 1
            while t >= 0:
                if not present[n, t]:
                    t -= 1
                    continue
                linked = t + 1 < length and present[n, t + 1]
                softmax(closed[t] + between[:, drawn[n, d, t + 1]] if linked else closed[t], chances)
                label = pick(chances, noise[n, d, t, 0])
                width = _terms(t, label, scores, lengths, present[n], opened, terms)
                softmax(terms[:width], spans[:width])
                count = pick(spans[:width], noise[n, d, t, 1]) + 1
                drawn[n, d, t - count + 1 : t + 1] = label
                t -= count


@compiled
def _terms(t, label, scores, lengths, present, opened, terms):
    """The scores of the runs of a label that end at a position, by their length less one, and how many there are."""
    run = 0.0
    for w in range(len(terms)):
        if t < w or not present[t - w]:
            return w
        run += scores[t - w, label]
        terms[w] = opened[t - w, label] + run + lengths[min(t - w, len(lengths) - 1), w, label]
    return len(terms)


@compiled
def best(first, last, nodes, transitions, durations, present, found):
    """The segmentations (N, k, T) with the highest scores, as labels, best first, -1 throughout where there are fewer.

    `opened` are the k best scores of all before a run of a label that begins at a position, `closed` of all up to a run
    that ends there, `whole` of all up to a position that is the last before an absent one; each knows where it is from.
    """
    (length, states), k = nodes.shape[1:], found.shape[1]
    scores, between, lengths = room(nodes, durations)
    opened, opened_from = np.empty((states, length, k)), np.empty((states, length, k), dtype=np.int64)
    closed, closed_from = np.empty((length, states, k)), np.empty((length, states, k), dtype=np.int64)
    whole_from = np.empty((length, k), dtype=np.int64)
    longest = lengths.shape[1]
    links, unlinked = np.empty(longest), np.zeros(states)
    found[first:last] = -1
    for n in range(first, last):
        load(n, nodes, transitions, durations, scores, between, lengths)
        into, start = between.T.copy(), 0
        whole, ahead = np.full((1, k), -np.inf), np.full((1, k), -np.inf)
        whole[0, 0] = 0.0
        opened[:], closed[:] = -np.inf, -np.inf
        for t in range(length):
            if not present[n, t]:
                continue
            begins = t == 0 or not present[n, t - 1]
            start = t if begins else start
            low = max(start, t - longest + 1)
            for s in range(states):
                if begins:
                    opened[s, t], opened_from[s, t] = whole[0], np.arange(k)
                else:
                    merge(closed[t - 1], into[s], 0.0, opened[s, t], opened_from[s, t])
                run = 0.0
                for u in range(t, low - 1, -1):
                    run += scores[u, s]
                    links[u - low] = run + lengths[min(u, len(lengths) - 1), t - u, s]
                runs = links[: t - low + 1]
                merge(opened[s, low : t + 1], runs, 0.0, closed[t, s], closed_from[t, s])
            if t + 1 == length or not present[n, t + 1]:
                ahead[:] = -np.inf
                merge(closed[t], unlinked, 0.0, ahead[0], whole_from[t])
                whole, ahead = ahead, whole
        for rank in range(k):
            if whole[0, rank] == -np.inf:
                break
            _follow(rank, k, longest, present[n], opened_from, closed_from, whole_from, found[n, rank])


@compiled
def _follow(rank, k, longest, present, opened_from, closed_from, whole_from, labels):
    """Writes the labels of one segmentation, from the last run to the first."""
    length, label = len(present), 0
    t, start = length - 1, 0
    while t >= 0:
        if not present[t]:
            t -= 1
            continue
        if t + 1 == length or not present[t + 1]:
            label, rank = divmod(whole_from[t, rank], k)
            start = t
            while start > 0 and present[start - 1]:
                start -= 1
        place, rank = divmod(closed_from[t, label, rank], k)
        begin = max(start, t - longest + 1) + place
        labels[begin : t + 1] = label
        origin = opened_from[label, begin, rank]
        if begin > start:
            label, rank = divmod(origin, k)
        else:
            rank = origin
        t = begin - 1
