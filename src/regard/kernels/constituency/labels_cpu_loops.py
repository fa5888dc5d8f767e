"""The loops that sum over the labels of spans, for numba: imported when first called. What is below the diagonal is no
span, and is left alone. All spans that begin with a word lie in one row, whose exponentials are taken at once.
"""

import numpy as np

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import exp

LEAST = -85.0
"""The logarithm of a share that is zero, being too small for a float32."""


@compiled
def sums(first, last, scores, out, shares):
    """The logarithms of the sums of the exponentials over the labels, of the rows first to last, and the share that
    each label has of its sum, which is the gradient."""
    words, labels = scores.shape[1], scores.shape[3]
    tops, zero = np.empty(words, scores.dtype), scores.dtype.type(0)
    for row in range(first, last):
        for i in range(words):
            out[row, i, :i], shares[row, i, :i] = zero, zero
            ours, lines = scores[row, i, i:], shares[row, i, i:]
            for span in range(words - i):
                top = ours[span, 0]
                for label in range(1, labels):
                    top = ours[span, label] if ours[span, label] > top else top
                for label in range(labels):
                    lines[span, label] = ours[span, label] - top
                tops[span] = top
            flat = lines.reshape(-1)
            for k in range(len(flat)):
                flat[k] = exp(flat[k]) * (flat[k] > LEAST)
            for span in range(words - i):
                total = zero
                for label in range(labels):
                    total += lines[span, label]
                if tops[span] == -np.inf and not _has_nan(ours[span]):
                    out[row, i, i + span], lines[span] = -np.inf, zero
                    continue
                out[row, i, i + span] = tops[span] + np.log(total)
                for label in range(labels):
                    lines[span, label] /= total


@compiled
def _has_nan(scores):
    total = scores[0]
    for score in scores:
        total += score
    return total != total
