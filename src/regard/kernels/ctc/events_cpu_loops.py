"""The loops of the best paths of connectionist temporal classification, and of drawn ones, for numba: imported when
they are first called. Rows are as in `cpu_loops`."""

import numpy as np

from regard.kernels.ctc.cpu_loops import SMALL, logarithms, outline, room, scaled
from regard.kernels.on_cpu import compiled


@compiled
def best(first, last, scores, states, present, found):
    """The labels (N, k, T) of the paths with the highest scores, best first, -1 throughout where there are fewer."""
    length, width, k = scores.shape[1], states.shape[1], found.shape[1]
    frames, band, skips, sums, _ = room(length, width)
    origins = np.empty((length, width + 2, k if k > 1 else 0), np.int64)
    found[first:last] = -1
    for n in range(first, last):
        size, count = outline(states[n], present[n], frames, band, skips)
        path = frames[:count], band, skips, states[n, :size]
        if k == 1:
            best_of_row(scores[n], path, sums, found[n, 0])
        else:
            k_best_of_row(scores[n], path, origins, found[n])


@compiled
def best_of_row(scores, path, sums, found):
    """The best path (T,) by the highest score up to each state, from which the way back is read."""
    frames, band, skips, states = path
    size, count = len(states), len(frames)
    start, barred = np.full(size + 2, -np.inf), np.empty(size)
    start[2] = 0.0
    for s in range(size):
        barred[s] = 0.0 if skips[s] > 0 else -np.inf
    for u in range(count):
        low, high = band[u, 0], band[u, 1] + 1
        before = sums[u - 1] if u > 0 else start
        sums[u] = -np.inf
        stay, one, two = before[low + 2 : high + 2], before[low + 1 : high + 1], before[low:high]
        here, score, bar, labels = sums[u, low + 2 : high + 2], scores[frames[u]], barred[low:high], states[low:high]
        for i in range(len(here)):
            skipped = two[i] + bar[i]
            most = stay[i] if stay[i] > one[i] else one[i]
            here[i] = (most if most > skipped else skipped) + score[labels[i]]
    if count == 0:
        return
    s = size - 1
    if size > 1 and sums[count - 1, s + 1] > sums[count - 1, s + 2]:
        s -= 1
    if not sums[count - 1, s + 2] > -np.inf:
        return
    for u in range(count - 1, -1, -1):
        found[frames[u]] = states[s]
        if u > 0:
            stay, one, skipped = sums[u - 1, s + 2], sums[u - 1, s + 1], sums[u - 1, s] + barred[s]
            if skipped > stay and skipped > one:
                s -= 2
            elif one > stay:
                s -= 1


@compiled
def k_best_of_row(scores, path, origins, found):
    """The k best paths (k, T), by the k best scores up to each state and where they are from: the number of states
    times k plus a rank."""
    frames, band, skips, states = path
    (k, size), count = (len(found), len(states)), len(frames)
    sums, ahead = np.full((size + 2, k), -np.inf), np.full((size + 2, k), -np.inf)
    sums[2, 0] = 0.0
    ends, origin = np.full(k, -np.inf), np.empty(k, np.int64)
    for u in range(count):
        ahead[:] = -np.inf
        for s in range(band[u, 0], band[u, 1] + 1):
            score, steps = np.float64(scores[frames[u], states[s]]), 3 if skips[s] > 0 else 2
            merge(sums, s + 2, steps, score, ahead[s + 2], origins[u, s + 2])
        sums, ahead = ahead, sums
    merge(sums, size + 1, 2, 0.0, ends, origin)
    for rank in range(k if count > 0 else 0):
        if not ends[rank] > -np.inf:
            break
        steps, place = divmod(origin[rank], k)
        s = size - 1 - steps
        for u in range(count - 1, -1, -1):
            found[rank, frames[u]] = states[s]
            steps, place = divmod(origins[u, s + 2, place], k)
            s -= steps


@compiled
def merge(scores, state, steps, score, merged, origin):
    """The k best of the k best scores of a state and of those before it, each state's in order."""
    k = len(merged)
    taken = (0, 0, 0)
    for rank in range(k):
        best, which = -np.inf, -1
        for step in range(steps):
            if taken[step] < k and scores[state - step, taken[step]] > best:
                best, which = scores[state - step, taken[step]], step
        if which < 0 or not best + score > -np.inf:
            break
        merged[rank] = best + score
        origin[rank] = which * k + taken[which]
        taken = (taken[0] + (which == 0), taken[1] + (which == 1), taken[2] + (which == 2))


@compiled
def draw(first, last, scores, states, present, noise, drawn):
    """Labels (N, draws, T) of paths, each state by its chance given the one after it, for uniform noise of that shape,
    the first numbers for the frames that are present."""
    frames, band, skips, sums, chances = room(scores.shape[1], states.shape[1])
    still = np.zeros(scores.shape[1:], scores.dtype)
    drawn[first:last] = -1
    for n in range(first, last):
        size, count = outline(states[n], present[n], frames, band, skips)
        path = frames[:count], band, skips, states[n, :size]
        exact = scaled(scores[n], path, sums, chances) > -np.inf and drawn_of_row(path, sums, noise[n], drawn[n])
        if not exact and count > 0:
            before, _ = logarithms(scores[n], still, path)
            drawn_by_logarithms(path, before[1:], noise[n], drawn[n])


@compiled
def drawn_of_row(path, sums, noise, drawn):
    """Whether all draws of a row could be made by sums of probabilities."""
    frames, _, skips, states = path
    for d in range(len(noise)):
        s = len(states) - 1
        for u in range(len(frames) - 1, -1, -1):
            two = sums[u, s] if u + 1 < len(frames) and skips[s] > 0 else 0.0
            one, stay = sums[u, s + 1], sums[u, s + 2]
            if not two + one + stay >= SMALL:
                return False
            s -= steps_back(two, one, stay, noise[d, u])
            drawn[d, frames[u]] = states[s]
    return True


@compiled
def drawn_by_logarithms(path, before, noise, drawn):
    """The draws of a row by the logarithms of sums; -1 throughout where no path is possible."""
    frames, _, skips, states = path
    drawn[:] = -1
    for d in range(len(noise)):
        s = len(states) - 1
        for u in range(len(frames) - 1, -1, -1):
            two = before[u, s] if u + 1 < len(frames) and skips[s] > 0 else -np.inf
            one, stay = before[u, s + 1], before[u, s + 2]
            most = max(two, one, stay)
            if not most > -np.inf:
                break
            s -= steps_back(np.exp(two - most), np.exp(one - most), np.exp(stay - most), noise[d, u])
            drawn[d, frames[u]] = states[s]


@compiled
def steps_back(two, one, stay, level):
    """How many states before the next one the path was, for a level between 0 and 1."""
    level *= two + one + stay
    if level < two:
        return 2
    if level < two + one or stay == 0:
        return 1 if one > 0 else 2
    return 0
