"""The loops of a head's step over a memory, float32, for numba: imported when they are first called.

What is asked of a row is, side by side, what the head's gates are made of: a key, a strength, the gate between content
and the step before, a width of moves, and a power. Lengths that are out of the ordinary are computed in float64.
"""

import math

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import exp32, log32

F, D = np.float32, np.float64
TINY = F(2.0**-126)
"""The smallest normal number: what is less, beside the largest, is none."""
FEW = F(16 * 2.0**-23)
"""What weights may lack to one by rounding."""
LOWEST = F(-87)
"""The exponential of what is less is none."""
SMALL, LARGE = F(1e-25), F(1e25)
"""Between them the square of a length is right in float32."""


@compiled
def softplus(x):
    """log(1 + exp(x))."""
    return F(max(x, 0) + math.log1p(math.exp(-abs(x))))


@compiled
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return F(1 / (1 + math.exp(-D(x))))


@compiled
def softmax(x, out):
    """out = exp(x) / sum exp(x), NaN where one is."""
    top, norm = F(-np.inf), F(0)
    for k in range(len(x)):
        top = x[k] if x[k] > top else top
    for k in range(len(x)):
        out[k] = F(0) if x[k] - top < LOWEST else exp32(x[k] - top)
    for k in range(len(x)):
        norm += out[k]
    for k in range(len(x)):
        out[k] /= norm


@compiled
def unit(vector, out):
    """out = vector / |vector|, and one over its length; two for zeros, which stay."""
    squares = D(0)
    for v in range(len(vector)):
        squares += D(vector[v]) * D(vector[v])
    inverse = D(2) if squares == 0 else 1 / math.sqrt(squares)
    for v in range(len(vector)):
        out[v] = F(vector[v] * inverse)
    return inverse


@compiled
def carefully(cell, key):
    """key . cell / |cell| and one over |cell|, in float64."""
    total, squares = D(0), D(0)
    for v in range(len(cell)):
        total += D(key[v]) * D(cell[v])
        squares += D(cell[v]) * D(cell[v])
    inverse = D(2) if squares == 0 else 1 / math.sqrt(squares)
    return F(total * inverse), F(inverse)


@compiled
def compare(memory, key, cosine, inverse):
    """The cosine of each cell with a key of length one, and one over its length."""
    for k in range(len(memory)):
        cell, total, squares = memory[k], F(0), F(0)
        for v in range(len(cell)):
            total += key[v] * cell[v]
            squares += cell[v] * cell[v]
        if SMALL < squares < LARGE:
            inverse[k] = F(1) / math.sqrt(squares)
            cosine[k] = total * inverse[k]
        else:
            cosine[k], inverse[k] = carefully(cell, key)


@compiled
def pad(weights, before, circular, out):
    """The weights with places in front and behind: those of the other end, or none unless circular."""
    places = len(weights)
    for i in range(before):
        out[i] = weights[(i - before) % places] if circular else F(0)
    for k in range(places):
        out[before + k] = weights[k]
    for i in range(before + places, len(out)):
        out[i] = weights[(i - before) % places] if circular else F(0)


@compiled
def mix(found, before, gate, mixed):
    """Content and the step before, by the gate."""
    for k in range(len(mixed)):
        mixed[k] = gate * found[k] + (F(1) - gate) * before[k]


@compiled
def lack(weights):
    """What the weights lack to one, none within rounding, and the largest of it and them; NaN for what is no number."""
    total, top = F(0), F(0)
    for k in range(len(weights)):
        total += weights[k]
    for k in range(len(weights)):
        top = weights[k] if weights[k] > top else top
    nowhere = F(1) - total if abs(total) < F(np.inf) else F(np.nan)
    nowhere = F(0) if nowhere <= FEW else nowhere
    return nowhere, nowhere if nowhere > top else top


@compiled
def sharpen(moved, power, out):
    """out_k = moved_k^power over the sum of these and nowhere's; nowhere's share."""
    nowhere, top = lack(moved)
    for k in range(len(moved)):
        part = moved[k] / top
        exponent = power * log32(F(1) if part < TINY else part)
        raised = exp32(exponent)
        out[k] = F(0) if part < TINY or exponent < LOWEST else raised
    norm = F(0)
    for k in range(len(moved)):
        norm += out[k]
    rest = F(0) if nowhere == 0 else F(math.pow(nowhere / top, power))
    norm += rest
    for k in range(len(moved)):
        out[k] /= norm
    return rest / norm


@compiled
def looks(first, last, asked, memory, before, circular, context, weights, kept, rests):
    """context[n] = sum_k weights[n, k] memory[n, k], and these weights; for rows n from first to last.

    What is kept are the cosines, one over the lengths, the weights by content and as they were moved; and nowhere's
    shares.
    """
    places, size = memory.shape[1], memory.shape[2]
    width = asked.shape[2] - size - 3
    key, moves, read = np.empty(size, F), np.empty(width, F), np.empty(size, F)
    scores, around = np.empty(places, F), np.empty(places + width - 1, F)
    for n in range(first, last):
        gates, cosine, found, moved = asked[n, 0, size:], kept[n, 0], kept[n, 2], kept[n, 3]
        strength, gate, power = softplus(gates[0]), sigmoid(gates[1]), F(1) + softplus(gates[width + 2])
        softmax(gates[2 : width + 2], moves)
        unit(asked[n, 0, :size], key)
        compare(memory[n], key, cosine, kept[n, 1])
        for k in range(places):
            scores[k] = strength * cosine[k]
        softmax(scores, found)
        mix(found, before[n, 0], gate, scores)
        pad(scores, width // 2, len(circular) > 0, around)
        for k in range(places):
            moved[k] = F(0)
        for j in range(width):
            for k in range(places):
                moved[k] += moves[j] * around[k + width - 1 - j]
        rests[n] = sharpen(moved, power, weights[n, 0])
        for v in range(size):
            read[v] = F(0)
        for k in range(places):
            weight, cell = weights[n, 0, k], memory[n, k]
            for v in range(size):
                read[v] += weight * cell[v]
        context[n, 0, :] = read


@compiled
def of_sharpened(slopes, weights, moved, power, rest, out):
    """From the slopes of the sharpened weights, where `rest` is nowhere's, those of the weights before; and the
    power's."""
    nowhere, top = lack(moved)
    mean, of_power = F(0), F(0)
    for k in range(len(moved)):
        mean += slopes[k] * weights[k]
    for k in range(len(moved)):
        part = moved[k] / top
        some = F(1) if part < TINY else part
        inner = weights[k] * (slopes[k] - mean)
        of_power += log32(some) * inner
        out[k] = F(0) if part < TINY else power * inner / moved[k]
    if nowhere != 0:
        of_power -= F(math.log(nowhere / top)) * rest * mean
        for k in range(len(moved)):
            out[k] += power * rest * mean / nowhere
    return of_power


@compiled
def of_content(slopes, key, inverse, strength, memory, cosine, lengths, of_memory, of_key):
    """From the slopes of the cosines, those of the key, and those of the memory, which are added to what is there."""
    of_unit = np.zeros(len(key), F)
    for k in range(len(memory)):
        cell, of_cell = memory[k], of_memory[k]
        one = strength * slopes[k] * lengths[k]
        other = one * cosine[k] * lengths[k]
        for v in range(len(key)):
            of_cell[v] += one * key[v] - other * cell[v]
            of_unit[v] += one * cell[v]
    along = F(0)
    for v in range(len(key)):
        along += of_unit[v] * key[v]
    for v in range(len(key)):
        of_key[v] = F((of_unit[v] - along * key[v]) * inverse)


@compiled
def gradients(
    first, last, of_context, of_weights, asked, memory, before, circular, weights, kept, rests,
    of_asked, of_memory, of_before,
):  # fmt: skip
    """The gradients of the same rows."""
    places, size = memory.shape[1], memory.shape[2]
    width = asked.shape[2] - size - 3
    key, moves, slope = np.empty(size, F), np.empty(width, F), np.empty(size, F)
    slopes, of_moved, mixed = np.empty(places, F), np.empty(places, F), np.empty(places, F)
    around, of_moves = np.empty(places + width - 1, F), np.empty(width, F)
    for n in range(first, last):
        gates, of_gates, weight = asked[n, 0, size:], of_asked[n, 0, size:], weights[n, 0]
        cosine, lengths, found, moved = kept[n, 0], kept[n, 1], kept[n, 2], kept[n, 3]
        strength, gate, power = softplus(gates[0]), sigmoid(gates[1]), F(1) + softplus(gates[width + 2])
        softmax(gates[2 : width + 2], moves)
        inverse = unit(asked[n, 0, :size], key)
        for v in range(size):
            slope[v] = of_context[n, 0, v]
        for k in range(places):
            share, cell, of_cell, total = weight[k], memory[n, k], of_memory[n, k], of_weights[n, 0, k]
            for v in range(size):
                total += slope[v] * cell[v]
                of_cell[v] = share * slope[v]
            slopes[k] = total
        of_power = of_sharpened(slopes, weight, moved, power, rests[n], of_moved)
        mix(found, before[n, 0], gate, mixed)
        pad(mixed, width // 2, len(circular) > 0, around)
        for j in range(width):
            total = F(0)
            for k in range(places):
                total += of_moved[k] * around[k + width - 1 - j]
            of_moves[j] = total
        pad(of_moved, (width - 1) // 2, len(circular) > 0, around)
        for k in range(places):
            slopes[k] = F(0)
        for j in range(width):
            for k in range(places):
                slopes[k] += moves[j] * around[k + j]
        of_gate, mean, of_strength = F(0), F(0), F(0)
        for k in range(places):
            of_gate += slopes[k] * (found[k] - before[n, 0, k])
            of_before[n, 0, k] = (F(1) - gate) * slopes[k]
            slopes[k] *= gate
            mean += slopes[k] * found[k]
        for k in range(places):
            slopes[k] = found[k] * (slopes[k] - mean)
            of_strength += slopes[k] * cosine[k]
        of_content(slopes, key, inverse, strength, memory[n], cosine, lengths, of_memory[n], of_asked[n, 0, :size])
        mean = F(0)
        for j in range(width):
            mean += moves[j] * of_moves[j]
        for j in range(width):
            of_gates[2 + j] = moves[j] * (of_moves[j] - mean)
        of_gates[0] = of_strength * sigmoid(gates[0])
        of_gates[1] = of_gate * gate * (F(1) - gate)
        of_gates[width + 2] = of_power * sigmoid(gates[width + 2])
