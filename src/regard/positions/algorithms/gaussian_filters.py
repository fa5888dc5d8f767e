"""Gaussian filters over the rows and the columns of an image, and what is read and written through them.

Time O(N Y X) for each channel; the kernels form nothing larger than the result.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from regard.kernels.registry import find_road
from regard.positions.base import wide

NARROW, WIDE = 1e-4, 1e3
"""The widths between which one is taken at its word: a Gaussian is then on one pixel, or even over all of them."""


def read_through(
    centre: Float[Tensor, "*SB 2"], stride: Float[Tensor, "*SB 2"], width: Float[Tensor, "*SB 2"], size: int,
    *images: Float[Tensor, "*B _ Y X"],
) -> Float[Tensor, "... C N N"]:  # fmt: skip
    """F_y image F_x^T, by `size` filters each way, of the channels of all images.

    >>> read_through(torch.zeros(2), torch.zeros(2), torch.full((2,), 1e3), 1, torch.eye(4).view(1, 4, 4))
    tensor([[[0.2500]]])
    """
    given = centre, stride, width, size, *images
    return (find_road((read_through,), *given) or plain_read)(*given)


def write_through(
    centre: Float[Tensor, "*SB 2"], stride: Float[Tensor, "*SB 2"], width: Float[Tensor, "*SB 2"],
    shape: tuple[int, int], patch: Float[Tensor, "*B C N N"],
) -> Float[Tensor, "... C Y X"]:  # fmt: skip
    """F_y^T patch F_x.

    >>> write_through(torch.zeros(2), torch.zeros(2), torch.full((2,), 1e3), (2, 2), torch.ones(1, 1, 1))
    tensor([[[0.2500, 0.2500],
             [0.2500, 0.2500]]])
    """
    given = centre, stride, width, shape, patch
    return (find_road((write_through,), *given) or plain_write)(*given)


def plain_read(centre: Tensor, stride: Tensor, width: Tensor, size: int, *images: Tensor) -> Tensor:
    """The plain road of `read_through`."""
    image = images[0] if len(images) == 1 else torch.cat(images, -3)
    shape = image.shape[-2], image.shape[-1]
    rows, columns = (each.softmax(-1).to(image.dtype) for each in filter_scores(centre, stride, width, size, shape))
    across = columns @ image.flatten(-3, -2).mT  # (*S, *B, N, C Y), a third of the time of the other way round
    beside = across.unflatten(-1, image.shape[-3:-1]).flatten(-3, -2)  # (*S, *B, N C, Y)
    return (beside @ rows.mT).unflatten(-2, (size, -1)).movedim(-3, -1)


def plain_write(centre: Tensor, stride: Tensor, width: Tensor, shape: tuple[int, int], patch: Tensor) -> Tensor:
    """The plain road of `write_through`."""
    scores = filter_scores(centre, stride, width, patch.shape[-1], shape)
    rows, columns = (each.softmax(-1).to(patch.dtype) for each in scores)
    across = patch.flatten(-3, -2) @ columns  # (*S, *B, C N, X)
    return rows.mT.unsqueeze(-3) @ across.unflatten(-2, patch.shape[-3:-1])


def filter_scores(
    centre: Float[Tensor, "*B 2"],
    stride: Float[Tensor, "*B 2"],
    width: Float[Tensor, "*B 2"],
    size: int,
    shape: tuple[int, int],
) -> tuple[Float[Tensor, "*B N Y"], Float[Tensor, "*B N X"]]:
    """What the filters F_y and F_x are a softmax of, in float32 at least."""
    centre, stride, width = (wide(torch.as_tensor(each)) for each in (centre, stride, width))
    if shape[0] == shape[1]:  # both at once takes half of the time
        rows, columns = _scores(centre, stride, width, size, shape[0]).unbind(-3)
        return rows, columns
    rows, columns = (_scores(centre[..., n], stride[..., n], width[..., n], size, shape[n]) for n in (0, 1))
    return rows, columns


def _scores(
    centre: Float[Tensor, "*B"], stride: Float[Tensor, "*B"], width: Float[Tensor, "*B"], size: int, extent: int
) -> Float[Tensor, "*B N extent"]:
    """The log-probabilities of the pixels of a line, but for a constant, for each of `size` places on it.

    -(p - m)^2 less that of the point n of the image that is nearest to m, (p - n) (2 m - n - p), so that nothing is
    cancelled, nor all infinite, far outside.
    """
    steps = torch.arange(size, dtype=centre.dtype, device=centre.device) - (size - 1) / 2
    pixels = torch.arange(1, 2 * extent, 2, dtype=centre.dtype, device=centre.device) / extent - 1
    middle = torch.addcmul(centre.unsqueeze(-1), stride.unsqueeze(-1), steps).unsqueeze(-1)  # (*B, N, 1)
    nearest = middle.detach().clamp(-1, 1)
    scale = 0.5 / width.clamp(NARROW, WIDE).square()
    return (pixels - nearest) * (2 * middle - nearest - pixels) * scale[..., None, None]
