"""The loops of connectionist temporal classification, for numba: imported when they are first called.

Rows n are T frames by S scores. A path goes through the first `size` of the states (N, M), the blank at even places and
the labels of a target at odd ones, by none, one or two states a frame. Only those count that can be reached from the
first frame, and from which the last can be reached: the `band`.

Sums are of probabilities, those of scores relative to the highest of their frame, and the sums of a frame are divided
by their total before they are used for the next. Where that might not be exact, the row is done again in logarithms.
Rows of sums have two zeros before the first state or behind the last.
"""

import math

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import exp64

SMALL = 1e-100
"""Above it, what numbers too small for float64 would have added does not count."""


@compiled
def expectations(first, last, scores, states, present, log_z, found):
    """Of rows first to last log Z, and how probable each label of each frame is, (N, T, S)."""
    frames, band, skips, sums, chances = room(scores.shape[1], states.shape[1])
    expected, still = np.empty(found.shape[1:]), np.zeros(found.shape[1:], scores.dtype)
    for n in range(first, last):
        size, count = outline(states[n], present[n], frames, band, skips)
        path = frames[:count], band, skips, states[n, :size]
        expected[:] = 0.0
        log_z[n] = scaled(scores[n], path, sums, chances)
        if not log_z[n] > -np.inf or not occupied(path, sums, chances, expected):
            expected[:] = 0.0
            log_z[n] = in_logarithms(scores[n], still, path, expected, np.zeros_like(expected))
        found[n] = expected


@compiled
def tangents(first, last, scores, along, states, present, moved):
    """How fast the probabilities move where the scores move along a direction."""
    frames, band, skips, sums, chances = room(scores.shape[1], states.shape[1])
    slopes, change = np.empty_like(sums), np.empty(moved.shape[1:])
    for n in range(first, last):
        size, count = outline(states[n], present[n], frames, band, skips)
        path = frames[:count], band, skips, states[n, :size]
        change[:] = 0.0
        if not scaled_tangents(scores[n], along[n], path, sums, slopes, chances, change):
            change[:] = 0.0
            in_logarithms(scores[n], along[n], path, np.zeros_like(change), change)
        moved[n] = change


@compiled
def room(length, states):
    """What a row needs beside its answer: the frames that are present, their first and last state, whether a path may
    skip to a state (and two zeros), the sums up to each (after two zeros), and its chances."""
    frames, band, skips = np.empty(length, np.int64), np.empty((length, 2), np.int64), np.zeros(states + 2)
    return frames, band, skips, np.zeros((length, states + 2)), np.empty((length, states))


@compiled
def outline(states, present, frames, band, skips):
    """How many states and frames a row has, and fills what is known of them without the scores; of a row without a path
    a band is empty."""
    size, count = 0, 0
    while size < len(states) and states[size] >= 0:
        size += 1
    skips[:] = 0.0
    for s in range(3, size, 2):
        skips[s] = 1.0 if states[s] != states[s - 2] else 0.0
    for t in range(len(present)):
        if present[t]:
            frames[count] = t
            count += 1
    high, low = -1, size
    for u in range(count):
        high = min(high + 2 if u == 0 or (high % 2 == 1 and skips[high + 2] > 0) else high + 1, size - 1)
        band[u, 1] = high
    for u in range(count - 1, -1, -1):
        low = max(low - 2 if u == count - 1 or skips[low] > 0 else low - 1, 0)
        band[u, 0] = min(low, band[u, 1] + 1)
    return size, count


@compiled
def exponentials(scores, states, low, high, chances):
    """Those of the scores (S,) of the states from low to high, less the highest one, which is returned."""
    here, labels, highest = chances[low : high + 1], states[low : high + 1], -np.inf
    for i in range(len(here)):
        here[i] = scores[labels[i]]
        highest = here[i] if here[i] > highest else highest
    for i in range(len(here)):
        less = here[i] - highest
        here[i] = 0.0 if less <= -708 else exp64(less)
    return highest


@compiled
def scaled(scores, path, sums, chances):
    """Log Z of one row, with the sums (T, 2 + M) up to each state, of each frame by the total of the frame before; NaN
    where they may be inexact, and -inf where there is no path."""
    frames, band, skips, states = path
    total, scale, start = 0.0, 1.0, np.zeros(len(states) + 2)
    start[2] = 1.0
    for u in range(len(frames)):
        low, high = band[u, 0], band[u, 1] + 1
        total += exponentials(scores[frames[u]], states, low, high - 1, chances[u])
        before = sums[u - 1] if u > 0 else start
        stay, one, two = before[low + 2 : high + 2], before[low + 1 : high + 1], before[low:high]
        sums[u] = 0.0
        here, chance, skip = sums[u, low + 2 : high + 2], chances[u, low:high], skips[low:high]
        reached = 0.0
        for i in range(len(here)):
            here[i] = (stay[i] + one[i] + skip[i] * two[i]) * (chance[i] * scale)
            reached += here[i]
        if not reached >= SMALL:
            return np.nan
        total += math.log(reached)
        scale = 1 / reached
    return total if len(frames) > 0 or len(states) == 1 else -np.inf


@compiled
def occupied(path, sums, chances, found):
    """Adds the chance of each label at each frame to found (T, S); False where it may be inexact."""
    frames, band, skips, states = path
    ahead, after, end = np.zeros(len(states) + 2), np.ones(len(states)), len(frames) - 1
    for u in range(end, -1, -1):
        low, high = band[u, 0], band[u, 1] + 1
        here, left = after[low:high], sums[u, low + 2 : high + 2]
        stay, one, two, skip = ahead[low:high], ahead[low + 1 :], ahead[low + 2 :], skips[low + 2 :]
        both, reached, rest = 0.0, 0.0, 0.0
        for i in range(len(here)):
            if u < end:
                here[i] = stay[i] + one[i] + skip[i] * two[i]
            both += here[i] * left[i]
            reached += left[i]
            rest += here[i]
        if not both >= SMALL * reached * rest:
            return False
        scatter(here, left, 1 / both, low, states, found[frames[u]])
        ahead[:] = 0.0
        next_to, chance, scale = ahead[low:high], chances[u, low:high], 1 / rest
        for i in range(len(here)):
            next_to[i] = here[i] * chance[i] * scale
    return True


@compiled
def scatter(here, left, share, low, states, found):
    """Adds the shares of the states from `low` on to their labels."""
    blank = 0.0
    for i in range(low % 2, len(here), 2):
        blank += here[i] * left[i]
    for i in range(1 - low % 2, len(here), 2):
        found[states[low + i]] += share * here[i] * left[i]
    found[states[0]] += share * blank


@compiled
def scaled_tangents(scores, along, path, sums, slopes, chances, moved):
    """Adds how fast these chances move to moved (T, S), by the same sums, here with the total one, and how fast they
    move; False where they may be inexact."""
    frames, band, skips, states = path
    size = len(states)
    start, still = np.zeros(size + 2), np.zeros(size + 2)
    start[2] = 1.0
    for u in range(len(frames)):
        turn, chance = along[frames[u]], chances[u]
        exponentials(scores[frames[u]], states, band[u, 0], band[u, 1], chance)
        before, moves = (sums[u - 1], slopes[u - 1]) if u > 0 else (start, still)
        sums[u], slopes[u] = 0.0, 0.0
        reached, drift = 0.0, 0.0
        for s in range(band[u, 0], band[u, 1] + 1):
            value = (before[s + 2] + before[s + 1] + skips[s] * before[s]) * chance[s]
            slope = (moves[s + 2] + moves[s + 1] + skips[s] * moves[s]) * chance[s] + value * turn[states[s]]
            sums[u, s + 2], slopes[u, s + 2] = value, slope
            reached += value
            drift += slope
        if not reached >= SMALL:
            return False
        for s in range(band[u, 0], band[u, 1] + 1):
            sums[u, s + 2] /= reached
            slopes[u, s + 2] = (slopes[u, s + 2] - sums[u, s + 2] * drift) / reached
    after, later, ahead, ahead_slopes = np.ones(size), np.zeros(size), np.zeros(size + 2), np.zeros(size + 2)
    for u in range(len(frames) - 1, -1, -1):
        both, change, largest, drift = 0.0, 0.0, 0.0, 0.0
        for s in range(band[u, 0], band[u, 1] + 1):
            if u + 1 < len(frames):
                after[s] = ahead[s] + ahead[s + 1] + skips[s + 2] * ahead[s + 2]
                later[s] = ahead_slopes[s] + ahead_slopes[s + 1] + skips[s + 2] * ahead_slopes[s + 2]
            both += sums[u, s + 2] * after[s]
            change += slopes[u, s + 2] * after[s] + sums[u, s + 2] * later[s]
            largest += after[s]
            drift += later[s]
        if not both >= SMALL * largest:
            return False
        ahead[:], ahead_slopes[:] = 0.0, 0.0
        for s in range(band[u, 0], band[u, 1] + 1):
            share = sums[u, s + 2] / both
            slope = (slopes[u, s + 2] - share * change) / both
            moved[frames[u], states[s]] += slope * after[s] + share * later[s]
            after[s] /= largest
            later[s] = (later[s] - after[s] * drift) / largest
            ahead[s] = after[s] * chances[u, s]
            ahead_slopes[s] = later[s] * chances[u, s] + ahead[s] * along[frames[u], states[s]]
    return True


@compiled
def in_logarithms(scores, along, path, found, moved):
    """Log Z of one row, exact whatever the scores are; adds the chances and how fast they move along a direction."""
    frames, band, skips, states = path
    size, count = len(states), len(frames)
    before, slopes = logarithms(scores, along, path)
    log_z, last, rest, _ = sum_of_three(before[count, size + 1], before[count, size], -np.inf)
    drift = last * slopes[count, size + 1] + rest * slopes[count, size]
    if count == 0 or log_z == -np.inf:
        return 0.0 if count == 0 and size == 1 else -np.inf
    ahead, ahead_slopes = np.full(size + 2, -np.inf), np.zeros(size + 2)
    after, later = np.zeros(size), np.zeros(size)
    for u in range(count - 1, -1, -1):
        t = frames[u]
        for s in range(band[u, 0], band[u, 1] + 1):
            if u + 1 < count:
                two = ahead[s + 2] if skips[s + 2] > 0 else -np.inf
                after[s], stay, one, skip = sum_of_three(ahead[s], ahead[s + 1], two)
                later[s] = stay * ahead_slopes[s] + one * ahead_slopes[s + 1] + skip * ahead_slopes[s + 2]
            chance = math.exp(before[u + 1, s + 2] + after[s] - log_z)
            found[t, states[s]] += chance
            moved[t, states[s]] += chance * (slopes[u + 1, s + 2] + later[s] - drift)
        ahead[:], ahead_slopes[:] = -np.inf, 0.0
        for s in range(band[u, 0], band[u, 1] + 1):
            ahead[s] = scores[t, states[s]] + after[s]
            ahead_slopes[s] = along[t, states[s]] + later[s]
    return log_z


@compiled
def logarithms(scores, along, path):
    """The logarithms of the sums up to each state, and how fast they move: a row before all frames, and one of each."""
    frames, band, skips, states = path
    before, slopes = np.full((len(frames) + 1, len(states) + 2), -np.inf), np.zeros((len(frames) + 1, len(states) + 2))
    before[0, 2] = 0.0
    for u in range(len(frames)):
        for s in range(band[u, 0], band[u, 1] + 1):
            two = before[u, s] if skips[s] > 0 else -np.inf
            reached, stay, one, skip = sum_of_three(before[u, s + 2], before[u, s + 1], two)
            slope = stay * slopes[u, s + 2] + one * slopes[u, s + 1] + skip * slopes[u, s]
            before[u + 1, s + 2] = reached + scores[frames[u], states[s]]
            slopes[u + 1, s + 2] = slope + along[frames[u], states[s]]
    return before, slopes


@compiled
def sum_of_three(a, b, c):
    """The logarithm of the sum of three exponentials, and the share of each, zero where nothing is possible."""
    best = a
    if not b <= best:
        best = b
    if not c <= best:
        best = c
    if best == -np.inf and a + b + c == best:  # else there is NaN before it
        return best, 0.0, 0.0, 0.0
    one, two, three = math.exp(a - best), math.exp(b - best), math.exp(c - best)
    total = one + two + three
    return best + math.log(total), one / total, two / total, three / total
