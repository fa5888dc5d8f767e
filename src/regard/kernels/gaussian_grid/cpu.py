"""Reading and writing through windows of Gaussian filters on the CPU: filters and products in one op.

Time O(N Y X) for each channel, memory O(N (Y + C X)) beside what is given and made. In float32 and float64.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regard.kernels import on_cpu
from regard.kernels.autograd import differentiable
from regard.kernels.registry import Road, register_road
from regard.positions.algorithms import gaussian_filters
from regard.positions.algorithms.gaussian_filters import read_through, write_through

SMALLEST = 1 << 13
"""Pixels below which the plain road is taken, which compiles nothing."""
MOST = 24
"""Filters each way above which products of matrices are as fast."""


def refuses_read(
    function: object, centre: Tensor, stride: Tensor, width: Tensor, size: int, *images: Tensor
) -> str | None:
    """As `_refuses`, or images of several types or batches."""
    first = images[0]
    if any(each.dtype != first.dtype or each.shape[:-3] != first.shape[:-3] for each in images[1:]):
        return "the images are of several types or batches"
    return _refuses(centre, first, size, sum(each.numel() for each in images))


def refuses_write(
    function: object, centre: Tensor, stride: Tensor, width: Tensor, shape: tuple[int, int], patch: Tensor
) -> str | None:
    """As `_refuses`."""
    return _refuses(centre, patch, patch.shape[-1], math.prod(patch.shape[:-2]) * math.prod(shape))


def _refuses(centre: Tensor, given: Tensor, size: int, pixels: int) -> str | None:
    """Types other than float32 and float64, batches that differ, too many filters, or too little to do."""
    if given.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return "it takes float32 and float64, without autocast"
    if torch.promote_types(centre.dtype, given.dtype) != given.dtype:
        return "the filters are of a wider type"
    windows, images = centre.shape[:-1], given.shape[:-3]
    if len(images) > len(windows) or windows[len(windows) - len(images) :] != images:
        return "it takes one window, or several draws of it, for each image"
    if size > MOST:
        return f"above {MOST} filters each way the plain road is as fast"
    return None if pixels >= SMALLEST else f"below {SMALLEST} pixels the plain road is as fast"


def run_read(function: object, centre: Tensor, stride: Tensor, width: Tensor, size: int, *images: Tensor) -> Tensor:
    """F_y image F_x^T of the channels of all images, (*S, *B, C, N, N). Those without a gradient that are last are
    data, of which none is computed."""
    count = max([n * each.requires_grad for n, each in enumerate(images, 1)])
    image, data = (_joined(each, images[0]) for each in (images[:count], images[count:]))
    return _run(_reads, centre, stride, width, image, data, image.new_empty(size, size))


def _joined(images: tuple[Tensor, ...], like: Tensor) -> Tensor:
    """The images as one of one batch dimension, (B, C, Y, X)."""
    if not images:
        return like.new_empty(math.prod(like.shape[:-3]), 0, *like.shape[-2:])
    return _rows(images[0] if len(images) == 1 else torch.cat(images, -3), 3)


def _rows(tensor: Tensor, event: int) -> Tensor:
    """The tensor with one batch dimension before as many of its event."""
    if tensor.dim() != 1 + event:
        tensor = tensor.reshape(math.prod(tensor.shape[:-event]), *tensor.shape[-event:])
    return tensor.contiguous()


def run_write(
    function: object, centre: Tensor, stride: Tensor, width: Tensor, shape: tuple[int, int], patch: Tensor
) -> Tensor:
    """F_y^T patch F_x, (*S, *B, C, Y, X)."""
    return _run(_writes, centre, stride, width, _joined((patch,), patch), patch.new_empty(shape))


def _run(product: Callable[..., Tensor], centre: Tensor, stride: Tensor, width: Tensor, *given: Tensor) -> Tensor:
    out = product(*(_rows(each.to(given[0].dtype), 1) for each in (centre, stride, width)), *given)
    return out if centre.dim() == 2 else out.view(*centre.shape[:-1], *out.shape[1:])


def _forward_read(
    centre: Tensor, stride: Tensor, width: Tensor, image: Tensor, data: Tensor, like: Tensor
) -> tuple[Tensor, Tensor]:
    from regard.kernels.gaussian_grid import cpu_loops

    found = _shape_read(centre, stride, width, image, data, like)
    _over(len(image), cpu_loops.read, centre, stride, width, image, data, *reversed(found))
    return found


def _forward_write(centre: Tensor, stride: Tensor, width: Tensor, patch: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    from regard.kernels.gaussian_grid import cpu_loops

    found = _shape_write(centre, stride, width, patch, like)
    _over(len(patch), cpu_loops.write, centre, stride, width, patch, *reversed(found))
    return found


def _over(count: int, kernel: Any, *tensors: Tensor) -> None:
    """Runs the kernel over so many images."""
    arrays = [each.numpy() for each in tensors]
    on_cpu.run(kernel, [(*block, *arrays) for block in on_cpu.blocks(count)])


def _shape_read(
    centre: Tensor, stride: Tensor, width: Tensor, image: Tensor, data: Tensor, like: Tensor
) -> tuple[Tensor, Tensor]:
    windows, channels, (height, extent) = len(centre), image.shape[1] + data.shape[1], image.shape[2:]
    kept = image.new_empty(windows, len(like) * (height + extent + channels * extent))
    return image.new_empty(windows, channels, *like.shape), kept


def _shape_write(centre: Tensor, stride: Tensor, width: Tensor, patch: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    windows, channels, (height, extent) = len(centre), patch.shape[1], like.shape
    kept = patch.new_empty(windows, patch.shape[2] * (height + extent + channels * extent))
    return patch.new_empty(windows, channels, height, extent), kept


def _backward_read(
    grad: Tensor, centre: Tensor, stride: Tensor, width: Tensor, image: Tensor, data: Tensor, like: Tensor,
    out: Tensor, kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from regard.kernels.gaussian_grid import cpu_loops

    found = _shapes(grad, centre, stride, width, image)
    _over(len(image), cpu_loops.read_back, grad, centre, stride, width, image, data, kept, *found)
    return found


def _backward_write(
    grad: Tensor, centre: Tensor, stride: Tensor, width: Tensor, patch: Tensor, like: Tensor, out: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from regard.kernels.gaussian_grid import cpu_loops

    found = _shapes(grad, centre, stride, width, patch)
    _over(len(patch), cpu_loops.write_back, grad, centre, stride, width, patch, kept, *found)
    return found


def _shapes(grad: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    centre, stride, width, image, *_ = (torch.empty_like(each) for each in given[:4])
    return centre, stride, width, image


def _plain_read(centre: Tensor, stride: Tensor, width: Tensor, image: Tensor, data: Tensor, like: Tensor) -> Tensor:
    return gaussian_filters.plain_read(centre, stride, width, len(like), image, data)


def _plain_write(centre: Tensor, stride: Tensor, width: Tensor, patch: Tensor, like: Tensor) -> Tensor:
    return gaussian_filters.plain_write(centre, stride, width, (like.shape[0], like.shape[1]), patch)


_reads = differentiable("grid_read", _forward_read, _backward_read, (_shape_read, _shapes), _plain_read)
_writes = differentiable("grid_write", _forward_write, _backward_write, (_shape_write, _shapes), _plain_write)
register_road((read_through,), "cpu", Road(run_read, refuses_read))
register_road((write_through,), "cpu", Road(run_write, refuses_write))
