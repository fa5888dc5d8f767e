"""The loops of a write to every cell of a memory, float32, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.on_cpu import compiled

F = np.float32


@compiled
def written(first, last, memory, weights, erase, add, out):
    """out[n, k] = memory[n, k] (1 - weights[n, k] erase[n]) + weights[n, k] add[n], for rows n from first to last."""
    for n in range(first, last):
        forget, new = erase[n, 0], add[n, 0]
        for k in range(memory.shape[1]):
            cell, after, weight = memory[n, k], out[n, k], weights[n, 0, k]
            for v in range(memory.shape[2]):
                after[v] = cell[v] * (F(1) - weight * forget[v]) + weight * new[v]


@compiled
def gradients(first, last, grad, memory, weights, erase, add, of_memory, of_weights, of_erase, of_add):
    """The gradients of the same rows."""
    width = memory.shape[2]
    for n in range(first, last):
        forget, new, of_forget, of_new = erase[n, 0], add[n, 0], of_erase[n, 0], of_add[n, 0]
        for v in range(width):
            of_forget[v] = of_new[v] = F(0)
        for k in range(memory.shape[1]):
            cell, slope, of_cell, weight, total = memory[n, k], grad[n, k], of_memory[n, k], weights[n, 0, k], F(0)
            for v in range(width):
                old = slope[v] * cell[v]
                total += slope[v] * new[v] - old * forget[v]
                of_cell[v] = slope[v] * (F(1) - weight * forget[v])
                of_forget[v] -= weight * old
                of_new[v] += weight * slope[v]
            of_weights[n, 0, k] = total
