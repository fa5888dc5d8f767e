"""The loops that sum over the labels of spans, for numba: imported when first called. What is below the diagonal is no
span, and is left alone."""

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import exp

LEAST = -85.0
"""The logarithm of a share that is zero, being too small for a float32."""


@compiled
def sums(first, last, scores, out):
    """The logarithms of the sums of the exponentials over the labels, of the rows first to last."""
    words, labels, zero = scores.shape[1], scores.shape[3], scores.dtype.type(0)
    for row in range(first, last):
        for i in range(words):
            out[row, i, :i] = 0.0
            for j in range(i, words):
                ours = scores[row, i, j]
                top, total = ours[0], ours[0]
                for label in range(1, labels):
                    top = ours[label] if ours[label] > top else top
                    total += ours[label]
                if not abs(top) < np.inf or total != total:
                    out[row, i, j] = top + total if top > -np.inf or total != total else -np.inf
                    continue
                total = zero
                for label in range(labels):
                    total += _share(ours[label] - top)
                out[row, i, j] = top + np.log(total)


@compiled
def shares(first, last, grad, scores, sums, out):
    """The gradients of the scores of the same rows: the share that each label has of the sum, times that of the sum."""
    words, labels = scores.shape[1], scores.shape[3]
    for row in range(first, last):
        for i in range(words):
            out[row, i, :i] = 0.0
            for j in range(i, words):
                ours, line, slope, top = scores[row, i, j], out[row, i, j], grad[row, i, j], sums[row, i, j]
                if top == -np.inf:
                    line[:] = 0.0
                    continue
                for label in range(labels):
                    line[label] = slope * _share(ours[label] - top)


@compiled
def _share(x):
    return exp(x) * (x > LEAST)
