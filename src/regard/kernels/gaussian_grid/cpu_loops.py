"""The loops of Gaussian filters, for numba: imported when they are first called.

There are as many windows as images, or a multiple: window n is over image n modulo their number. What is read and what
is written are the derivatives of one number, patch . (F_y image F_x^T), and so are the gradients of the filters. `kept`
has, of each window, F_y, F_x, and the product of one of them with what is given, (N, X) for each channel. Distances are
computed in float64, for a narrow filter knows the thousandth part of a pixel.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from regard.kernels.on_cpu import compiled
from regard.kernels.sparse.cpu_loops import INLINE, exp32, inlined
from regard.positions.algorithms.gaussian_filters import NARROW, WIDE

F, D = np.float32, np.float64


def exp(x):
    """The exponential of a float that is not above zero; of float32 a quick one, that is zero before it is subnormal,
    which would be slow to compute with."""


@overload(exp, jit_options=INLINE)
def _exp(x) -> Any:
    return (lambda x: F(0) if x < F(-87) else exp32(x)) if x == types.float32 else (lambda x: np.exp(x))


@inlined
def add(weights, lines, out):
    """out += weights lines, four lines at a time."""
    fours = len(lines) // 4 * 4
    for k in range(0, fours, 4):
        one, two, three, four = lines[k], lines[k + 1], lines[k + 2], lines[k + 3]
        for i in range(len(out)):
            a, b, c, d, line = weights[i, k], weights[i, k + 1], weights[i, k + 2], weights[i, k + 3], out[i]
            for x in range(len(line)):
                line[x] += a * one[x] + b * two[x] + c * three[x] + d * four[x]
    for k in range(fours, len(lines)):
        one = lines[k]
        for i in range(len(out)):
            share, line = weights[i, k], out[i]
            for x in range(len(line)):
                line[x] += share * one[x]


@inlined
def add_spread(weights, lines, out):
    """The same with weights.T, of which few lines make many; one of these at a time."""
    fours = len(lines) // 4 * 4
    for i in range(len(out)):
        line = out[i]
        for k in range(0, fours, 4):
            a, b, c, d = weights[k, i], weights[k + 1, i], weights[k + 2, i], weights[k + 3, i]
            one, two, three, four = lines[k], lines[k + 1], lines[k + 2], lines[k + 3]
            for x in range(len(line)):
                line[x] += a * one[x] + b * two[x] + c * three[x] + d * four[x]
        for k in range(fours, len(lines)):
            share, one = weights[k, i], lines[k]
            for x in range(len(line)):
                line[x] += share * one[x]


@inlined
def add_products(these, lines, out):
    """out[i, k] += these[i] . lines[k], four k at a time."""
    fours, none = len(lines) // 4 * 4, out.dtype.type(0)
    for k in range(0, fours, 4):
        one, two, three, four = lines[k], lines[k + 1], lines[k + 2], lines[k + 3]
        for i in range(len(these)):
            a, b, c, d, this = none, none, none, none, these[i]
            for x in range(len(this)):
                a += this[x] * one[x]
                b += this[x] * two[x]
                c += this[x] * three[x]
                d += this[x] * four[x]
            out[i, k] += a
            out[i, k + 1] += b
            out[i, k + 2] += c
            out[i, k + 3] += d
    for k in range(fours, len(lines)):
        line = lines[k]
        for i in range(len(these)):
            total, this = none, these[i]
            for x in range(len(this)):
                total += this[x] * line[x]
            out[i, k] += total


@inlined
def bounded(x, low, high):
    """x within bounds; this way round NaN stays NaN."""
    x = low if x < low else x
    return high if x > high else x


@inlined
def rate(width):
    """1 / 2 w^2."""
    width = bounded(width, NARROW, WIDE)
    return 0.5 / (width * width)


@inlined
def pixel(a, extent):
    """The middle of a pixel of a line whose edges are -1 and 1."""
    return (2 * a + 1) / extent - 1


@inlined
def nearest(middle, extent):
    """The middle of the pixel that is nearest."""
    return pixel(np.floor(bounded((middle + 1) * extent / 2, 0.0, extent - 1.0)), extent)


@inlined
def place(centre, stride, width, out):
    """out[i, a] = the weight of pixel p_a in filter i, that of the nearest pixel q being one at first."""
    size, extent = out.shape
    scale = rate(width)
    for i in range(size):
        line, middle = out[i], centre + stride * (i - (size - 1) / 2)
        q = nearest(middle, extent)
        for a in range(extent):
            p = pixel(a, extent)
            line[a] = (p - q) * (2 * middle - q - p) * scale
    every, kind = out.reshape(size * extent), out.dtype.type
    for a in range(size * extent):  # in a loop of its own, which vectorises
        every[a] = exp(every[a])
    for i in range(size):
        line, total = out[i], kind(0)
        for a in range(extent):
            total += line[a]
        share = kind(1) / total
        for a in range(extent):
            line[a] *= share


@inlined
def slope(centre, stride, width, weights, of_weights):
    """The gradients of centre, stride and width."""
    size, extent = weights.shape
    scale, of_centre, of_stride, of_scale = rate(width), 0.0, 0.0, 0.0
    for i in range(size):
        line, of_line, middle = weights[i], of_weights[i], centre + stride * (i - (size - 1) / 2)
        q, mean, of_middle = nearest(middle, extent), 0.0, 0.0
        for a in range(extent):
            mean += line[a] * of_line[a]
        for a in range(extent):
            p = pixel(a, extent)
            share = line[a] * (of_line[a] - mean) * (p - q)
            of_middle += share
            of_scale += share * (2 * middle - q - p)
        of_centre += of_middle
        of_stride += of_middle * (i - (size - 1) / 2)
    of_width = -2 * scale * of_scale / width if NARROW <= width <= WIDE else 0.0
    return 2 * scale * of_centre, 2 * scale * of_stride, of_width


@inlined
def parts(kept, size, height, extent):
    """F_y (N, Y), F_x (N, X) and the products (C, N, X)."""
    middle, end = size * height, size * (height + extent)
    rows, columns = kept[:middle].reshape((size, height)), kept[middle:end].reshape((size, extent))
    return rows, columns, kept[end:].reshape((len(kept[end:]) // (size * extent), size, extent))


@compiled
def read(first, last, centre, stride, width, image, data, kept, out):
    """out = F_y image F_x^T, of the channels of the image and then of the data; for images from first to last."""
    size, learnt = out.shape[2], image.shape[1]
    for each in range(first, last):
        for n in range(each, len(out), len(image)):
            rows, columns, lines = parts(kept[n], size, image.shape[2], image.shape[3])
            place(D(centre[n, 0]), D(stride[n, 0]), D(width[n, 0]), rows)
            place(D(centre[n, 1]), D(stride[n, 1]), D(width[n, 1]), columns)
            out[n] = 0
            for c in range(out.shape[1]):
                pixels = image[each, c] if c < learnt else data[each, c - learnt]
                lines[c] = 0
                add(rows, pixels, lines[c])
                add_products(lines[c], columns, out[n, c])


@compiled
def read_back(
    first, last, grad, centre, stride, width, image, data, kept, of_centre, of_stride, of_width, of_image
):  # fmt: skip
    """The gradients of the same, but of the data."""
    size, learnt = grad.shape[2], image.shape[1]
    back = np.empty((size, image.shape[3]), image.dtype)
    of_rows, of_columns = np.empty((size, image.shape[2]), image.dtype), np.empty_like(back)
    for each in range(first, last):
        of_image[each] = 0
        for n in range(each, len(grad), len(image)):
            rows, columns, lines = parts(kept[n], size, image.shape[2], image.shape[3])
            of_rows[:] = 0
            of_columns[:] = 0
            for c in range(grad.shape[1]):
                pixels = image[each, c] if c < learnt else data[each, c - learnt]
                back[:] = 0
                add(grad[n, c], columns, back)
                add_products(back, pixels, of_rows)
                add_spread(grad[n, c], lines[c], of_columns)
                if c < learnt:
                    add_spread(rows, back, of_image[each, c])
            of_centre[n, 0], of_stride[n, 0], of_width[n, 0] = slope(
                D(centre[n, 0]), D(stride[n, 0]), D(width[n, 0]), rows, of_rows
            )
            of_centre[n, 1], of_stride[n, 1], of_width[n, 1] = slope(
                D(centre[n, 1]), D(stride[n, 1]), D(width[n, 1]), columns, of_columns
            )


@compiled
def write(first, last, centre, stride, width, patch, kept, out):
    """out = F_y^T patch F_x, for patches from first to last."""
    size = patch.shape[2]
    for each in range(first, last):
        for n in range(each, len(out), len(patch)):
            rows, columns, lines = parts(kept[n], size, out.shape[2], out.shape[3])
            place(D(centre[n, 0]), D(stride[n, 0]), D(width[n, 0]), rows)
            place(D(centre[n, 1]), D(stride[n, 1]), D(width[n, 1]), columns)
            lines[:] = 0
            out[n] = 0
            for c in range(out.shape[1]):
                add(patch[each, c], columns, lines[c])
                add_spread(rows, lines[c], out[n, c])


@compiled
def write_back(
    first, last, grad, centre, stride, width, patch, kept, of_centre, of_stride, of_width, of_patch
):  # fmt: skip
    """The gradients of the same."""
    size = patch.shape[2]
    seen = np.empty((size, grad.shape[3]), grad.dtype)
    of_rows, of_columns = np.empty((size, grad.shape[2]), grad.dtype), np.empty_like(seen)
    for each in range(first, last):
        of_patch[each] = 0
        for n in range(each, len(grad), len(patch)):
            rows, columns, lines = parts(kept[n], size, grad.shape[2], grad.shape[3])
            of_rows[:] = 0
            of_columns[:] = 0
            for c in range(grad.shape[1]):
                seen[:] = 0
                add(rows, grad[n, c], seen)
                add_products(seen, columns, of_patch[each, c])
                add_products(lines[c], grad[n, c], of_rows)
                add_spread(patch[each, c], seen, of_columns)
            of_centre[n, 0], of_stride[n, 0], of_width[n, 0] = slope(
                D(centre[n, 0]), D(stride[n, 0]), D(width[n, 0]), rows, of_rows
            )
            of_centre[n, 1], of_stride[n, 1], of_width[n, 1] = slope(
                D(centre[n, 1]), D(stride[n, 1]), D(width[n, 1]), columns, of_columns
            )
