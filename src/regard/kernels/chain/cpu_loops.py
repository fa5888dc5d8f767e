"""The loops of linear chains, for numba: imported when they are first called.

Rows n are sequences of T positions by S states; `transitions` (L, S, S) stand there for each row, or once for all, and
L is T - 1, or 1 for the same between all positions. Sums are taken
of probabilities, not of their logarithms: scores are relative to their maximum, and a message from one position to the
next is divided by its sum. Where that might not be exact, the row is done again in logarithms. What is read and
written may be of lower precision.
"""

import math

import numpy as np

from regard.kernels.chain import two_labels_cpu_loops
from regard.kernels.on_cpu import compiled

SMALL = 1e-100
"""Above it, what numbers too small for float64 would have added does not count."""


@compiled
def expectations(first, last, nodes, transitions, present, log_z, found):
    """Of rows first to last log Z, and the expected labels (T, S) and, where there is room for them behind those, the
    transitions (S, S)."""
    length, states = nodes.shape[1:]
    scratch, links, factors, highest = room(length, states, transitions.shape[1])
    spare = np.empty(links.shape, found.dtype)
    for n in range(first, last):
        if n == first or len(transitions) > 1:
            links[:] = transitions[min(n, len(transitions) - 1)]
            exponentials(links, factors, highest)
        labels, pairs = in_two(found[n], length, states, spare)
        log_z[n] = of_row(nodes[n], links, factors, highest, present[n], scratch, labels, pairs)


@compiled
def tangents(first, last, nodes, transitions, present, along, moved, moved_pairs):
    """How fast the expectations move where the scores move along a direction, that of the labels, and of the
    transitions if they are given behind: the Hessian of log Z times it."""
    length, states = nodes.shape[1:]
    scratch, links, factors, highest = room(length, states, transitions.shape[1])
    nothing = np.zeros(links.shape, along.dtype)
    for n in range(first, last):
        if n == first or len(transitions) > 1:
            links[:] = transitions[min(n, len(transitions) - 1)]
            exponentials(links, factors, highest)
        labels, pairs = in_two(along[n], length, states, nothing)
        tangents_of_row(nodes[n], links, factors, present[n], labels, pairs, scratch, moved[n], moved_pairs[n])


@compiled
def segment_means(first, last, scores, stay, present, means):
    """The probability of label 1 of two, which scores (N, T), where neighbours score `stay` (N,) for being alike."""
    length = scores.shape[1]
    scratch, links, factors, highest = room(length, 2, 1)
    nodes, labels, pairs = np.zeros((length, 2)), np.empty((length, 2)), np.empty((1, 2, 2))
    for n in range(first, last):
        nodes[:, 1] = scores[n]
        alike(links, stay[n], factors, highest)
        of_row(nodes, links, factors, highest, present[n], scratch, labels, pairs)
        means[n] = labels[:, 1]


@compiled
def segment_tangents(first, last, scores, stay, present, along, moved, moved_stay):
    """How the gradient of log Z, which the means are, moves along a direction."""
    length = scores.shape[1]
    scratch, links, factors, highest = room(length, 2, 1)
    nodes, labels, pairs = np.zeros((length, 2)), np.zeros((length, 2)), np.zeros((1, 2, 2))
    slopes, turned = np.empty((length, 2)), np.empty((1, 2, 2))
    for n in range(first, last):
        nodes[:, 1], labels[:, 1] = scores[n], along[n]
        alike(links, stay[n], factors, highest)
        tangents_of_row(nodes, links, factors, present[n], labels, pairs, scratch, slopes, turned)
        moved[n] = slopes[:, 1]
        moved_stay[n] = turned[0, 0, 0] + turned[0, 1, 1]


@compiled
def alike(links, stay, factors, highest):
    """Transitions (1, 2, 2) that score being alike, with their exponentials."""
    links[0, 0, 0] = links[0, 1, 1] = stay
    links[0, 0, 1] = links[0, 1, 0] = 0.0
    exponentials(links, factors, highest)


@compiled
def room(length, states, steps):
    """What a row needs beside its answer: numbers for each position, for each label there, and for each transition;
    and transitions (L, S, S), their exponentials, and the highest of each L."""
    scratch = np.empty((5, length)), np.empty((6, length, states)), np.empty((4, steps, states, states))
    return scratch, np.empty((steps, states, states)), np.empty((steps, states, states)), np.empty(steps)


@compiled
def of_row(nodes, transitions, factors, highest, present, scratch, labels, pairs):
    """Log Z and the expectations of one row: by the odds of two labels, else by probabilities, else by logarithms."""
    numbers, tables, squares = scratch
    if nodes.shape[1] == 2 and len(factors) == 1:
        gaps, odds, low, high = numbers[0], numbers[1], numbers[2], numbers[3]
        two_labels_cpu_loops.differences(nodes, gaps)
        if two_labels_cpu_loops.filtered(gaps, factors[0], present, odds, low, high):
            two_labels_cpu_loops.smoothed(present, odds, low, high, labels, pairs[0])
            return two_labels_cpu_loops.log_sum(nodes, factors[0], highest[0], present, odds)
    scores, likely, found, expected = tables[0], tables[1], tables[2], squares[0]
    scores[:] = nodes
    log_z = scaled(scores, factors, highest, present, likely, found, expected)
    if log_z != log_z:
        still, no_pairs = np.zeros_like(scores), np.zeros_like(expected)
        log_z = in_logarithms(scores, transitions, present, still, no_pairs, found, expected, tables[3], squares[1])
    labels[:], pairs[:] = found, expected
    return log_z


@compiled
def tangents_of_row(nodes, transitions, factors, present, along, turn, scratch, moved, moved_pairs):
    """The tangents of one row, likewise."""
    numbers, tables, squares = scratch
    if nodes.shape[1] == 2 and len(factors) == 1:
        gaps, odds, low, high, slopes = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
        two_labels_cpu_loops.differences(nodes, gaps)
        if two_labels_cpu_loops.filtered(gaps, factors[0], present, odds, low, high):
            two_labels_cpu_loops.tangents(present, odds, low, high, along, turn[0], slopes, moved, moved_pairs[0])
            return
    scores, direction, turned, expected = tables[0], tables[1], squares[0], squares[1]
    scores[:], direction[:], turned[:] = nodes, along, turn
    given = scores, factors, factors * turned, present, direction
    change, change_pairs = tables[2], squares[2]
    if not scaled_tangents(*given, tables[3], tables[4], tables[5], expected, change, change_pairs):
        in_logarithms(scores, transitions, present, direction, turned, tables[4], expected, change, change_pairs)
    moved[:], moved_pairs[:] = change, change_pairs


@compiled
def in_two(row, length, states, otherwise):
    """What is of labels (T, S) and of transitions (L, S, S) in a row of both, or else of labels alone."""
    labels = row[: length * states].reshape(length, states)
    return labels, row[length * states :].reshape(otherwise.shape) if len(row) > length * states else otherwise


@compiled
def exponentials(scores, factors, highest):
    """Those of the scores (L, S, S) less the highest one of each L, zero where nothing is possible."""
    for step in range(len(scores)):
        highest[step] = scores[step].max()
        if highest[step] == -np.inf:
            factors[step] = 0.0
        else:
            factors[step] = np.exp(scores[step] - highest[step])


@compiled
def scaled_forward(nodes, factors, highest, present, likely, labels):
    """The logarithm of Z, and the chances of the labels of each position given all up to it; NaN where they may be
    inexact."""
    length, states = nodes.shape
    total = 0.0
    for t in range(length):
        if not present[t]:
            continue
        best = nodes[t, 0]
        for j in range(1, states):
            best = max(best, nodes[t, j])
        for j in range(states):
            likely[t, j] = math.exp(nodes[t, j] - best)
            labels[t, j] = 0.0
        if t > 0 and present[t - 1]:
            step = min(t, len(factors)) - 1
            links = factors[step]
            total += highest[step]
            for i in range(states):
                reached = labels[t - 1, i]
                for j in range(states):
                    labels[t, j] += reached * links[i, j]
            for j in range(states):
                labels[t, j] *= likely[t, j]
        else:
            for j in range(states):
                labels[t, j] = likely[t, j]
        size = 0.0
        for j in range(states):
            size += labels[t, j]
        if not size >= SMALL:
            return np.nan
        for j in range(states):
            labels[t, j] /= size
        total += best + math.log(size)
    return total


@compiled
def scaled(nodes, factors, highest, present, likely, labels, pairs):
    """The same of one row, by messages of probabilities forward and backward; NaN where they may be inexact."""
    length, states = nodes.shape
    total = scaled_forward(nodes, factors, highest, present, likely, labels)
    after, weighed = np.ones(states), np.empty(states)
    pairs[:] = 0.0
    for t in range(length - 1, -1, -1):
        if not present[t]:
            labels[t] = 0.0
            continue
        if t + 1 < length and present[t + 1]:
            for j in range(states):
                weighed[j] = likely[t + 1, j] * after[j]
            step = min(t + 1, len(factors)) - 1
            links, counts = factors[step], pairs[step]
            size, both = 0.0, 0.0
            for i in range(states):
                left = 0.0
                for j in range(states):
                    left += links[i, j] * weighed[j]
                after[i] = left
                size += left
                both += labels[t, i] * left
            if not (size >= SMALL and both >= SMALL * size):
                return np.nan
            for i in range(states):
                share = labels[t, i] / both
                labels[t, i] = share * after[i]
                after[i] /= size
                for j in range(states):
                    counts[i, j] += share * weighed[j]
        else:
            after[:] = 1.0
    pairs *= factors
    return total


@compiled
def scaled_tangents(nodes, factors, sloped, present, along, likely, labels, slopes, pairs, moved, moved_pairs):
    """The tangents of one row by the same messages and how fast they move; False where they may be inexact."""
    length, states = nodes.shape
    for t in range(length):
        if not present[t]:
            continue
        best = nodes[t, 0]
        for j in range(1, states):
            best = max(best, nodes[t, j])
        for j in range(states):
            likely[t, j] = math.exp(nodes[t, j] - best)
            labels[t, j] = 0.0
            slopes[t, j] = 0.0
        if t > 0 and present[t - 1]:
            step = min(t, len(factors)) - 1
            links, tilts = factors[step], sloped[step]
            for i in range(states):
                reached, slope = labels[t - 1, i], slopes[t - 1, i]
                for j in range(states):
                    labels[t, j] += reached * links[i, j]
                    slopes[t, j] += slope * links[i, j] + reached * tilts[i, j]
            for j in range(states):
                labels[t, j] *= likely[t, j]
                slopes[t, j] *= likely[t, j]
        else:
            for j in range(states):
                labels[t, j] = likely[t, j]
        size, change = 0.0, 0.0
        for j in range(states):
            size += labels[t, j]
            slopes[t, j] += labels[t, j] * along[t, j]
            change += slopes[t, j]
        if not size >= SMALL:
            return False
        for j in range(states):
            labels[t, j] /= size
            slopes[t, j] = (slopes[t, j] - labels[t, j] * change) / size
    after, later, weighed, weighed_slopes = np.ones(states), np.zeros(states), np.empty(states), np.empty(states)
    pairs[:] = 0.0
    moved_pairs[:] = 0.0
    for t in range(length - 1, -1, -1):
        if not present[t]:
            moved[t] = 0.0
            continue
        if t + 1 < length and present[t + 1]:
            for j in range(states):
                weighed[j] = likely[t + 1, j] * after[j]
                weighed_slopes[j] = likely[t + 1, j] * later[j] + weighed[j] * along[t + 1, j]
            step = min(t + 1, len(factors)) - 1
            links, tilts, counts, moved_counts = factors[step], sloped[step], pairs[step], moved_pairs[step]
            size, change, both, both_change = 0.0, 0.0, 0.0, 0.0
            for i in range(states):
                left, slope = 0.0, 0.0
                for j in range(states):
                    left += links[i, j] * weighed[j]
                    slope += links[i, j] * weighed_slopes[j] + tilts[i, j] * weighed[j]
                after[i], later[i] = left, slope
                size += left
                change += slope
                both += labels[t, i] * left
                both_change += slopes[t, i] * left + labels[t, i] * slope
            if not (size >= SMALL and both >= SMALL * size):
                return False
            for i in range(states):
                share = labels[t, i] / both
                share_slope = (slopes[t, i] - share * both_change) / both
                moved[t, i] = share_slope * after[i] + share * later[i]
                after[i] /= size
                later[i] = (later[i] - after[i] * change) / size
                for j in range(states):
                    counts[i, j] += share * weighed[j]
                    moved_counts[i, j] += share_slope * weighed[j] + share * weighed_slopes[j]
        else:
            after[:] = 1.0
            later[:] = 0.0
            moved[t] = slopes[t]
    moved_pairs[:] = factors * moved_pairs + sloped * pairs
    return True


@compiled
def in_logarithms(nodes, transitions, present, along, along_pairs, labels, pairs, moved, moved_pairs):
    """The logarithm of Z, the expectations and their tangents of one row, exact whatever the scores are."""
    length, states = nodes.shape
    before, slopes = np.empty((length, states)), np.zeros((length, states))
    chances = np.empty(states)
    labels[:], moved[:], pairs[:], moved_pairs[:] = 0.0, 0.0, 0.0, 0.0
    log_z, drift = forward(nodes, transitions, present, along, along_pairs, before, slopes)
    if log_z == -np.inf:
        return log_z
    after, later, ahead, ahead_slopes = np.zeros(states), np.zeros(states), np.empty(states), np.empty(states)
    rest, rest_slope = 0.0, 0.0
    for t in range(length - 1, -1, -1):
        if not present[t]:
            continue
        if t + 1 < length and present[t + 1]:
            step = min(t + 1, len(transitions)) - 1
            for j in range(states):
                ahead[j] = nodes[t + 1, j] + after[j]
                ahead_slopes[j] = along[t + 1, j] + later[j]
            for i in range(states):
                after[i] = log_sum(transitions[step, i] + ahead, chances)
                later[i] = 0.0
                for j in range(states):
                    slope = along_pairs[step, i, j] + ahead_slopes[j]
                    later[i] += chances[j] * slope
                    joint = math.exp(before[t, i] + transitions[step, i, j] + ahead[j] - log_z)
                    pairs[step, i, j] += joint
                    moved_pairs[step, i, j] += joint * (slopes[t, i] + slope - drift)
        else:
            after[:], later[:] = rest, rest_slope
        for i in range(states):
            labels[t, i] = math.exp(before[t, i] + after[i] - log_z)
            moved[t, i] = labels[t, i] * (slopes[t, i] + later[i] - drift)
        if t == 0 or not present[t - 1]:
            rest = log_sum(nodes[t] + after, chances)
            rest_slope = (chances * (along[t] + later)).sum()
    return log_z


@compiled
def forward(nodes, transitions, present, along, along_pairs, before, slopes):
    """The logarithm of Z and its slope, and those of the sums over all that stands before each label, with it."""
    length, states = nodes.shape
    chances = np.empty(states)
    total, drift = 0.0, 0.0
    for t in range(length):
        if not present[t]:
            continue
        step = min(t, len(transitions)) - 1
        for j in range(states):
            if t > 0 and present[t - 1]:
                reached = log_sum(before[t - 1] + transitions[step, :, j], chances)
                slope = (chances * (slopes[t - 1] + along_pairs[step, :, j])).sum()
            else:
                reached, slope = total, drift
            before[t, j] = nodes[t, j] + reached
            slopes[t, j] = along[t, j] + slope
        if t + 1 == length or not present[t + 1]:
            total = log_sum(before[t], chances)
            drift = (chances * slopes[t]).sum()
    return total, drift


@compiled
def log_sum(scores, chances):
    """The logarithm of the sum of exponentials, and the softmax, which is zero where nothing is possible."""
    best = -np.inf
    for score in scores:
        if not score <= best:
            best = score
    if best == -np.inf and scores.sum() == best:  # else there is NaN before it
        chances[:] = 0.0
        return best
    total = 0.0
    for j in range(len(scores)):
        chances[j] = math.exp(scores[j] - best)
        total += chances[j]
    chances /= total
    return best + math.log(total)
