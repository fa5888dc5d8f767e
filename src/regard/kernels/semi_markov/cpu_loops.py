"""The loops that sum over all segmentations of a sequence into labelled runs, for numba: imported when first called.

Rows n are sequences of T positions by S labels; `transitions` (S, S) and `durations` (L, W, S) are there for each row,
or once for all. L is T, by the position at which a run begins, or 1 for the same at all. Everything is a logarithm in
float64, exact whatever the scores are; what is read and written may be of lower precision. The messages of a row are
tables (T, S): `opened`, the sum over all that stands before a run of a label that begins at a position, `closed`, that
over all up to a run that ends there; `to_open` and `to_close` are the same from the other side. `moving`, the slopes of
these in a direction of the scores are computed beside them.
"""

import math

import numpy as np

from regard.kernels.on_cpu import compiled

NEGLIGIBLE = -50.0
"""Of a sum of exponentials those that are smaller than the largest by this factor are left out: exp(-50) is 2e-22."""


@compiled
def sums(first, last, nodes, transitions, durations, present, log_z, messages):
    """Log Z of the rows first to last, and opened and closed (N, 2, T, S)."""
    scores, between, lengths = room(nodes, durations)
    for n in range(first, last):
        load(n, nodes, transitions, durations, scores, between, lengths)
        opened, closed = messages[n, 0], messages[n, 1]
        log_z[n] = forward(scores, between, lengths, present[n], opened, closed)


@compiled
def expectations(first, last, nodes, transitions, durations, present, messages, log_z, found):
    """How often each label (T, S), each transition (S, S) and each length (L, W, S) is expected, flat."""
    scores, between, lengths = room(nodes, durations)
    for n in range(first, last):
        load(n, nodes, transitions, durations, scores, between, lengths)
        labels, pairs, spans = np.zeros_like(scores), np.zeros_like(between), np.zeros_like(lengths)
        given = scores, between, lengths, present[n], messages[n, 0], messages[n, 1]
        if log_z[n] != -np.inf:
            backward(given, log_z[n], labels, pairs, spans)
        store(found[n], labels, pairs, spans)


@compiled
def tangents(first, last, nodes, transitions, durations, present, along, moved):
    """How fast the expectations move where the scores move along a direction of the same form."""
    scores, between, lengths = room(nodes, durations)
    for n in range(first, last):
        load(n, nodes, transitions, durations, scores, between, lengths)
        labels, pairs, spans = np.zeros_like(scores), np.zeros_like(between), np.zeros_like(lengths)
        turn = in_three(along[n].astype(np.float64), scores, between, lengths)
        moving(scores, between, lengths, present[n], turn, labels, pairs, spans)
        store(moved[n], labels, pairs, spans)


@compiled
def room(nodes, durations):
    """What the scores of a row need: labels (T, S), transitions (S, S) and lengths (L, W, S)."""
    length, states = nodes.shape[1:]
    return np.empty((length, states)), np.empty((states, states)), np.empty(durations.shape[1:])


@compiled
def load(n, nodes, transitions, durations, scores, between, lengths):
    """The scores of a row; no label follows itself."""
    scores[:] = nodes[n]
    between[:] = transitions[min(n, len(transitions) - 1)]
    lengths[:] = durations[min(n, len(durations) - 1)]
    for s in range(len(between)):
        between[s, s] = -np.inf


@compiled
def in_three(row, scores, between, lengths):
    """Labels (T, S), transitions (S, S) and lengths (L, W, S) in a row of them."""
    first, second = scores.size, scores.size + between.size
    labels, pairs = row[:first].reshape(scores.shape), row[first:second].reshape(between.shape)
    return labels, pairs, row[second:].reshape(lengths.shape)


@compiled
def store(row, labels, pairs, spans):
    """The same put into a row."""
    first, second = labels.size, labels.size + pairs.size
    row[:first], row[first:second], row[second:] = labels.ravel(), pairs.ravel(), spans.ravel()


@compiled
def forward(scores, between, lengths, present, opened, closed):
    """Log Z; fills the messages of the positions that are present."""
    length, states = scores.shape
    terms, runs, best = np.empty(lengths.shape[1:]), np.empty(states), np.empty(states)
    links = np.empty_like(between)
    total, start = 0.0, 0
    for t in range(length):
        if not present[t]:
            continue
        if t == 0 or not present[t - 1]:
            start = t
            opened[t] = total
        else:
            for i in range(states):
                for j in range(states):
                    links[i, j] = closed[t - 1, i] + between[i, j]
            log_sums(links, states, best, opened[t])
        width = min(lengths.shape[1], t - start + 1)
        runs[:] = 0.0
        for w in range(width):
            here = min(t - w, len(lengths) - 1)
            for s in range(states):
                runs[s] += scores[t - w, s]
                terms[w, s] = opened[t - w, s] + runs[s] + lengths[here, w, s]
        log_sums(terms, width, best, closed[t])
        if t + 1 == length or not present[t + 1]:
            total = log_sum(closed[t])
    return total


@compiled
def backward(given, log_z, labels, pairs, spans):
    """Adds the expectations of a row that has any."""
    scores, between, lengths, present, opened, closed = given
    length, states = scores.shape
    to_open, to_close = np.empty((length, states)), np.empty((length, states))
    terms, runs, best = np.empty(lengths.shape[1:]), np.empty(states), np.empty(states)
    links, came, stay = np.empty_like(between), np.empty(states), np.empty(states)
    rest, stop = 0.0, 0
    for t in range(length - 1, -1, -1):
        if not present[t]:
            continue
        if t + 1 == length or not present[t + 1]:
            stop = t
            to_close[t] = rest
        else:
            for j in range(states):
                for i in range(states):
                    links[j, i] = between[i, j] + to_open[t + 1, j]
            log_sums(links, states, best, to_close[t])
            for i in range(states):
                for j in range(states):
                    pairs[i, j] += chance(closed[t, i] + links[j, i] - log_z)
        width = min(lengths.shape[1], stop - t + 1)
        here = min(t, len(lengths) - 1)
        runs[:] = 0.0
        for w in range(width):
            for s in range(states):
                runs[s] += scores[t + w, s]
                terms[w, s] = runs[s] + lengths[here, w, s] + to_close[t + w, s]
        log_sums(terms, width, best, to_open[t])
        for s in range(states):
            came[s], stay[s] = opened[t, s] - log_z, 0.0
        for w in range(width - 1, -1, -1):
            for s in range(states):
                joint = chance(came[s] + terms[w, s])
                spans[here, w, s] += joint
                stay[s] += joint
                labels[t + w, s] += stay[s]
        if t == 0 or not present[t - 1]:
            rest = log_sum(to_open[t])


@compiled
def moving(scores, between, lengths, present, turn, labels, pairs, spans):
    """Adds how fast the expectations of a row move in a direction, of which `turn` is the labels', the transitions' and
    the lengths' part: the messages and their slopes, forward and backward."""
    along, along_pairs, along_spans = turn
    length, states = scores.shape
    opened, closed = np.zeros((length, states)), np.zeros((length, states))
    opened_slopes, closed_slopes = np.zeros((length, states)), np.zeros((length, states))
    terms, slopes = np.empty(lengths.shape[1:]), np.empty(lengths.shape[1:])
    links, link_slopes = np.empty_like(between), np.empty_like(between)
    runs, run_slopes, best = np.empty(states), np.empty(states), np.empty(states)
    total, drift, start = 0.0, 0.0, 0
    for t in range(length):
        if not present[t]:
            continue
        if t == 0 or not present[t - 1]:
            start = t
            opened[t], opened_slopes[t] = total, drift
        else:
            for i in range(states):
                for j in range(states):
                    links[i, j] = closed[t - 1, i] + between[i, j]
                    link_slopes[i, j] = closed_slopes[t - 1, i] + along_pairs[i, j]
            log_sums(links, states, best, opened[t])
            mean_slopes(links, link_slopes, states, opened[t], opened_slopes[t])
        width = min(lengths.shape[1], t - start + 1)
        runs[:], run_slopes[:] = 0.0, 0.0
        for w in range(width):
            here = min(t - w, len(lengths) - 1)
            for s in range(states):
                runs[s] += scores[t - w, s]
                run_slopes[s] += along[t - w, s]
                terms[w, s] = opened[t - w, s] + runs[s] + lengths[here, w, s]
                slopes[w, s] = opened_slopes[t - w, s] + run_slopes[s] + along_spans[here, w, s]
        log_sums(terms, width, best, closed[t])
        mean_slopes(terms, slopes, width, closed[t], closed_slopes[t])
        if t + 1 == length or not present[t + 1]:
            total = log_sum(closed[t])
            drift = mean_slope(closed[t], closed_slopes[t], total)
    if total == -np.inf:
        return

    log_z, whole = total, drift
    to_open, to_close = np.zeros((length, states)), np.zeros((length, states))
    to_open_slopes, to_close_slopes = np.zeros((length, states)), np.zeros((length, states))
    stay = np.empty(states)
    rest, rest_slope, stop = 0.0, 0.0, 0
    for t in range(length - 1, -1, -1):
        if not present[t]:
            continue
        if t + 1 == length or not present[t + 1]:
            stop = t
            to_close[t], to_close_slopes[t] = rest, rest_slope
        else:
            for j in range(states):
                for i in range(states):
                    links[j, i] = between[i, j] + to_open[t + 1, j]
                    link_slopes[j, i] = along_pairs[i, j] + to_open_slopes[t + 1, j]
                    joint = chance(closed[t, i] + links[j, i] - log_z)
                    pairs[i, j] += joint * (closed_slopes[t, i] + link_slopes[j, i] - whole)
            log_sums(links, states, best, to_close[t])
            mean_slopes(links, link_slopes, states, to_close[t], to_close_slopes[t])
        width = min(lengths.shape[1], stop - t + 1)
        here = min(t, len(lengths) - 1)
        runs[:], run_slopes[:] = 0.0, 0.0
        for w in range(width):
            for s in range(states):
                runs[s] += scores[t + w, s]
                run_slopes[s] += along[t + w, s]
                terms[w, s] = runs[s] + lengths[here, w, s] + to_close[t + w, s]
                slopes[w, s] = run_slopes[s] + along_spans[here, w, s] + to_close_slopes[t + w, s]
        log_sums(terms, width, best, to_open[t])
        mean_slopes(terms, slopes, width, to_open[t], to_open_slopes[t])
        stay[:] = 0.0
        for w in range(width - 1, -1, -1):
            for s in range(states):
                joint = chance(opened[t, s] + terms[w, s] - log_z)
                moved = joint * (opened_slopes[t, s] + slopes[w, s] - whole)
                spans[here, w, s] += moved
                stay[s] += moved
                labels[t + w, s] += stay[s]
        if t == 0 or not present[t - 1]:
            rest = log_sum(to_open[t])
            rest_slope = mean_slope(to_open[t], to_open_slopes[t], rest)


@compiled
def log_sums(terms, count, best, out):
    """The logarithms of the sums of the exponentials of the first rows, column by column."""
    states = len(out)
    best[:] = -np.inf
    for w in range(count):
        for s in range(states):
            best[s] = terms[w, s] if terms[w, s] > best[s] else best[s]
    for s in range(states):
        best[s] = best[s] if best[s] > -np.inf else 0.0
        out[s] = 0.0
    for w in range(count):
        for s in range(states):
            if not terms[w, s] - best[s] < NEGLIGIBLE:
                out[s] += math.exp(terms[w, s] - best[s])
    for s in range(states):
        out[s] = best[s] + np.log(out[s])


@compiled
def log_sum(terms):
    """That of one row."""
    best = -np.inf
    for term in terms:
        best = term if term > best else best
    best = best if best > -np.inf else 0.0
    total = 0.0
    for term in terms:
        total += math.exp(term - best)
    return best + np.log(total)


@compiled
def mean_slopes(terms, slopes, count, sums, out):
    """The slopes of the logarithms of the sums, column by column; zero where nothing is possible."""
    out[:] = 0.0
    for w in range(count):
        for s in range(len(out)):
            if sums[s] != -np.inf:
                out[s] += chance(terms[w, s] - sums[s]) * slopes[w, s]


@compiled
def mean_slope(terms, slopes, total):
    """That of one row."""
    slope = 0.0
    if total != -np.inf:
        for s in range(len(terms)):
            slope += chance(terms[s] - total) * slopes[s]
    return slope


@compiled
def chance(log_chance):
    """Its exponential, zero where that is too small to count."""
    return 0.0 if log_chance < 2 * NEGLIGIBLE else math.exp(log_chance)
