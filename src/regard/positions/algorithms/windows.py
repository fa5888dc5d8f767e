"""Products with the few rows that lie in each query's window: w rows beside each other, of K, from `first` on.

What of a window lies outside of the K rows is zero. Time O(Q w D); the kernels form nothing larger than the result.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.registry import find_road


def window_scores(
    query: Float[Tensor, "*SB Q D"], keys: Float[Tensor, "*B K D"], first: Int[Tensor, "*SB Q"], width: int
) -> Float[Tensor, "*SB Q w"]:
    """The dot product of each query with the keys of its window.

    >>> window_scores(torch.ones(1, 1), torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1]), width=3)
    tensor([[2., 3., 0.]])
    """
    return (find_road((window_scores,), query, keys, first, width) or plain_scores)(query, keys, first, width)


def window_means(
    weights: Float[Tensor, "*SB Q w"], values: Float[Tensor, "*B K V"], first: Int[Tensor, "*SB Q"]
) -> Float[Tensor, "*SB Q V"]:
    """The sum of the values of each window, weighted.

    >>> window_means(torch.tensor([[0.5, 0.25]]), torch.tensor([[4.0], [8.0], [0.0]]), torch.tensor([0]))
    tensor([[4.]])
    """
    width = weights.shape[-1]
    return (find_road((window_means,), weights, values, first, width) or plain_means)(weights, values, first, width)


def plain_scores(query: Tensor, keys: Tensor, first: Tensor, width: int) -> Tensor:
    """The plain road of `window_scores`, by gathering the rows."""
    return (window_rows(keys, first, width) @ query.unsqueeze(-1)).squeeze(-1)


def plain_means(weights: Tensor, values: Tensor, first: Tensor, width: int) -> Tensor:
    """The plain road of `window_means`, by gathering the rows."""
    return (weights.unsqueeze(-2) @ window_rows(values, first, width)).squeeze(-2)


def window_rows(rows: Float[Tensor, "*B K D"], first: Int[Tensor, "*SB Q"], width: int) -> Float[Tensor, "*SB Q w D"]:
    """The rows of each window; those outside of the K are zero."""
    index = window_places(first, width)
    near = index.clamp(0, rows.shape[-2] - 1)
    taken = take_rows(rows, near.flatten(-2)).unflatten(-2, near.shape[-2:])
    return taken.masked_fill((index != near).unsqueeze(-1), 0)


def window_places(first: Int[Tensor, "*B Q"], width: int) -> Int[Tensor, "*B Q w"]:
    """The places of each window, some of which may lie outside.

    >>> window_places(torch.tensor([-1, 3]), width=2)
    tensor([[-1,  0],
            [ 3,  4]])
    """
    return first.unsqueeze(-1) + torch.arange(width, device=first.device)


def take_rows(rows: Float[Tensor, "*B K D"], index: Int[Tensor, "*SB N"]) -> Float[Tensor, "*SB N D"]:
    """The rows at the indices, of whole rows at a time; the index may have draws in front that the rows lack."""
    *batch, count, width = rows.shape
    before = count * torch.arange(rows[..., 0, 0].numel(), device=rows.device).view(*batch, 1)
    taken = rows.reshape(-1, width).index_select(0, (index + before).flatten())
    return taken.view(*torch.broadcast_shapes(index.shape[:-1], rows.shape[:-2]), index.shape[-1], width)
