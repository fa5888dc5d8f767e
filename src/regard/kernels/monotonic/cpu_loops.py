"""The loops of the expected alignment, float32, for numba: imported when they are first called."""

import numpy as np

from regard.kernels.on_cpu import compiled

F = np.float32
SMALL = F(1e-36)
STRIDE = 8
"""After so many places what has become smaller than SMALL is zero: processors take long over numbers so small that they
are not normal, and a product of chances soon is."""


@compiled
def weights(first, last, stop, go, start, out):
    """out[n, q, k] = stop[n, q, k] c_k with c_k = go[n, q, k - 1] c_{k-1} + out[n, q - 1, k], rows first to last."""
    queries, places = stop.shape[1], stop.shape[2]
    for n in range(first, last):
        before = start[n]
        for q in range(queries):
            stops, goes, here = stop[n, q], go[n, q], out[n, q]
            reached, passed = F(0), F(0)
            for begin in range(0, places, STRIDE):
                reached = F(0) if reached < SMALL else reached
                for k in range(begin, min(begin + STRIDE, places)):
                    reached = passed * reached + before[k]
                    passed = goes[k]
                    here[k] = stops[k] * reached
            before = here


@compiled
def gradients(first, last, grad, stop, go, start, out, of_stop, of_go, of_start):
    """The gradients of the same rows, from the last query to the first."""
    queries, places = stop.shape[1], stop.shape[2]
    for n in range(first, last):
        after = of_start[n]  # what the queries after this one ask of where it stopped
        for k in range(places):
            after[k] = F(0)
        for q in range(queries - 1, -1, -1):
            stops, goes, slopes = stop[n, q], go[n, q], grad[n, q]
            before = out[n, q - 1] if q > 0 else start[n]
            of_stops, of_goes = of_stop[n, q], of_go[n, q]
            reached, passed = F(0), F(0)
            for begin in range(0, places, STRIDE):
                reached = F(0) if reached < SMALL else reached
                for k in range(begin, min(begin + STRIDE, places)):
                    reached = passed * reached + before[k]
                    passed = goes[k]
                    of_stops[k] = reached
            later = F(0)
            for end in range(places, 0, -STRIDE):
                later = F(0) if abs(later) < SMALL else later
                for k in range(end - 1, max(end - STRIDE, 0) - 1, -1):
                    slope = slopes[k] + after[k]
                    reached = of_stops[k]
                    of_stops[k] = slope * reached
                    of_goes[k] = later * reached
                    later = stops[k] * slope + goes[k] * later
                    after[k] = later
