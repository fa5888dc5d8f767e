"""Which keys may a query look at? Masks are bool tensors, True = may be looked at; combine them with `&`, `|` and `~`.

The queries of a causal or window mask are the last Q of the K positions, so that a decoder that sees one query against
the K keys so far asks for the same mask as one that sees all at once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


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


def checked(mask: Any, scores: Sequence[int], name: str = "mask") -> Any:
    """The mask, if it is one for scores of this shape, (*B, Q, K): bool, with as many dimensions, each of their size or
    of one, or (Q, K); or None. What is checked at every door.

    Raises TypeError unless it is a tensor of bool, and ValueError for another shape; also for (B, K) where the scores
    are (B, B, K), which may be (Q, K) or the padding of each row: `mask[:, None, :]` is the padding, `mask[None]` is
    (Q, K).

    >>> checked(torch.ones(2, 3).bool(), (4, 2, 3)).shape
    torch.Size([2, 3])
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} expected dtype bool, True where a key may be looked at, but got {kind}.")
    *batch, queries, places = scores
    wanted = scores if mask.dim() == len(scores) else (queries, places)
    fits = mask.dim() == len(wanted) and all(have in (1, size) for have, size in zip(mask.shape, wanted, strict=True))
    if not fits:
        raise ValueError(
            f"{name} expected the shape of the scores, {tuple(scores)}, with sizes of one where all are alike, or "
            f"(Q, K) = {(queries, places)}, but got {tuple(mask.shape)}{_padding_remedy(mask.shape, batch)}."
        )
    refuse_ambiguous(mask, batch, name)
    return mask


def refuse_ambiguous(mask: Tensor, batch: Sequence[int], name: str = "mask") -> None:
    """Raises ValueError for a mask (B, K) where the batch is B: it may be (Q, K), or the padding of each row."""
    if mask.dim() == 2 and len(batch) == 1 and mask.shape[0] == batch[0] > 1:
        raise ValueError(
            f"{name} expected to be told apart from the padding of each row, (B, K), which {tuple(mask.shape)} may be "
            f"as well as (Q, K) for a batch of {batch[0]}: mask[:, None, :] is the padding, mask[None] is (Q, K)."
        )


def _padding_remedy(shape: Sequence[int], batch: Sequence[int]) -> str:
    alike = len(shape) == len(batch) + 1 and tuple(shape[:-1]) == tuple(batch)
    return "; the padding of each row is mask[..., None, :]" if alike else ""


def unread(mask: Bool[Tensor, "*B Q K"]) -> Bool[Tensor, "*B K 1"]:
    """The places that no query may look at: what keys and values hold there is never to be read, not even times zero.

    >>> unread(padding(torch.tensor([1]), places=3)).squeeze()
    tensor([False,  True,  True])
    """
    return ~mask.any(-2).unsqueeze(-1)


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
