"""Which keys may a query look at? Masks are bool tensors, True = may be looked at; combine them with `&`, `|` and `~`.

The queries of a causal or window mask are the last Q of the K positions, so that a decoder that sees one query against
the K keys so far asks for the same mask as one that sees all at once.
"""

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
