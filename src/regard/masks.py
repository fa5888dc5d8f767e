"""Which keys may a query look at? Masks are bool tensors, True = may be looked at; combine them with `&`, `|` and `~`.

The queries of a causal or window mask are the last Q of the K positions, so that a decoder that sees one query against
the K keys so far asks for the same mask as one that sees all at once.

A mask of (Q, K) for a batch of B says so by a dimension in front, `causal(n)[None]`: where B equals Q it would
otherwise pass for the padding (B, K) of each row, and is refused.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.kernels.registry import find_road


def padding(lengths: Int[Tensor, "*B"], places: int) -> Bool[Tensor, "*B 1 K"]:
    """The first `lengths` of the places, for every query alike: k < length.

    >>> padding(torch.tensor([1, 3]), places=3).int()
    tensor([[[1, 0, 0]],
    <BLANKLINE>
            [[1, 1, 1]]], dtype=torch.int32)
    """
    return (torch.arange(places, device=lengths.device) < lengths.unsqueeze(-1)).unsqueeze(-2)


def causal(queries: int, places: int | None = None, device: torch.device | None = None) -> Bool[Tensor, "Q K"]:
    """The query's own position and all before it: k <= q. Raises ValueError if there are more queries than places.

    >>> causal(2, places=3).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    return _behind(queries, places, device) >= 0


def window(
    width: int, queries: int, places: int | None = None, device: torch.device | None = None
) -> Bool[Tensor, "Q K"]:
    """The last `width` positions, the query's own included: q - width < k <= q.

    Raises ValueError if the width is below one, or if there are more queries than places.

    >>> window(2, queries=3).int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 1, 1]], dtype=torch.int32)
    """
    if width < 1:
        raise ValueError(f"window expected a width of at least 1, the query's own position, but got {width}.")
    behind = _behind(queries, places, device)
    return (behind >= 0) & (behind < width)


def document(queries: Int[Tensor, "*B Q"], keys: Int[Tensor, "*B K"] | None = None) -> Bool[Tensor, "*B Q K"]:
    """The keys of the query's own document, where several are packed into one row, by their numbers.

    >>> document(torch.tensor([0, 0, 1])).int()
    tensor([[1, 1, 0],
            [1, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    keys = queries if keys is None else keys
    return queries.unsqueeze(-1) == keys.unsqueeze(-2)


def checked(mask: Any, scores: Sequence[int]) -> Any:
    """The mask, if it is one for scores of this shape, (*B, Q, K): bool, with as many dimensions, each of their size or
    of one, or (Q, K), or (K,); or None. What every over checks.

    Raises TypeError unless it is a tensor of bool, and ValueError for another shape; also for (B, K) where the scores
    are (B, B, K): it may be (Q, K), or the padding of each row.

    >>> checked(torch.ones(2, 3).bool(), (4, 2, 3)).shape
    torch.Size([2, 3])
    """
    if mask is None:
        return None
    *batch, queries, places = scores
    _check_bool(mask)
    _check_shape(mask, scores if mask.dim() > 2 else (queries, places)[-mask.dim() :], batch)
    return mask


def full_rank(mask: Any, batch: Sequence[int], places: int) -> Bool[Tensor, "*B Q K"]:
    """The mask of any number of queries, with the batch dimensions of the keys; raises what `checked` does.

    >>> full_rank(torch.ones(2, 3).bool(), batch=(4,), places=3).shape
    torch.Size([4, 2, 3])
    """
    _check_bool(mask)
    queries = mask.shape[-2] if mask.dim() > 1 else 1
    _check_shape(mask, (*batch, queries, places) if mask.dim() != 2 else (queries, places), batch)
    return mask.expand(*batch, -1, places)


def _check_bool(mask: Any) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask expected dtype bool, True where a key may be looked at, but got {kind}.")


def _check_shape(mask: Tensor, wanted: Sequence[int], batch: Sequence[int]) -> None:
    """Raises ValueError unless the mask has the wanted sizes or ones, and is no padding that passes for (Q, K)."""
    fits = mask.dim() == len(wanted) and all(have in (1, size) for have, size in zip(mask.shape, wanted, strict=True))
    padding = "mask[..., None, :] is the padding of each row"
    if not fits:
        remedy = f"; {padding}" if tuple(mask.shape[:-1]) == tuple(batch) != () else ""
        raise ValueError(
            f"mask expected the shape (*B, Q, K) with B = {tuple(batch)} and K = {wanted[-1]}, sizes of one where all "
            f"are alike, or (Q, K), but got {tuple(mask.shape)}{remedy}."
        )
    if mask.dim() == 2 and len(batch) == 1 and mask.shape[0] == batch[0] > 1:
        raise ValueError(
            f"mask expected a shape that can be told apart from that of padding, (B, K), but got {tuple(mask.shape)} "
            f"for a batch of {batch[0]}: {padding}, and mask[None], such as causal(n)[None], is (Q, K)."
        )


def of_draws(mask: Bool[Tensor, "*B Q K"], dims: int) -> Bool[Tensor, "..."]:
    """The mask with so many dimensions, alike for all the draws that stand in front.

    >>> of_draws(torch.ones(2, 3).bool(), dims=4).shape
    torch.Size([1, 1, 2, 3])
    """
    return mask[(None,) * (dims - mask.dim())]


def unread(mask: Bool[Tensor, "*B Q K"]) -> Bool[Tensor, "*B K 1"]:
    """The places that no query may look at: what keys and values hold there is never to be read, not even times zero.

    >>> unread(padding(torch.tensor([1]), places=3)).squeeze()
    tensor([False,  True,  True])
    """
    return ~mask.any(-2).unsqueeze(-1)


def cleared(rows: Float[Tensor, "*B K D"], hidden: Bool[Tensor, "*B K 1"]) -> Float[Tensor, "*B K D"]:
    """The rows with zero in the place of those that are hidden, whatever they hold. Time O(K D).

    >>> cleared(torch.tensor([[1.0], [torch.nan]]), torch.tensor([[False], [True]]))
    tensor([[1.],
            [0.]])
    """
    return (find_road((cleared,), rows, hidden) or plain_cleared)(rows, hidden)


def plain_cleared(rows: Tensor, hidden: Tensor) -> Tensor:
    """The plain road."""
    return rows.masked_fill(hidden, 0)


def _behind(queries: int, places: int | None, device: torch.device | None) -> Int[Tensor, "Q K"]:
    """How far each place lies behind each query."""
    places = queries if places is None else places
    if queries > places:
        raise ValueError(
            "A causal or window mask expected at least as many places as queries, "
            f"but got {places} places for {queries} queries."
        )
    positions = torch.arange(places, device=device)
    return positions[places - queries :].unsqueeze(-1) - positions
