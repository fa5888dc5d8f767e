"""A budget: of how many places there is room in what is chosen."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.checks import check_part
from regard.over.mappings import Mask, Scores, sigmoid
from regard.over.structured import segments
from regard.over.subsets import subset
from regard.positions import Independent, Positions, Segments, Subset

HALVINGS = 20
"""How often the interval in which the threshold lies is halved."""
TINY = 1e-9
"""By so much a product may be below the whole number that it stands for."""


class budget(nn.Module):
    """`subset`, `sigmoid` or `segments` that look at no more than a share of the places: of n places that may be looked
    at there is room for max(1, floor(share n)).

    A `subset(k)` chooses as many places as there is room for, if that is fewer than k. The others are taken above a
    threshold, over(scores - t), with t of each query as low as it can be with no more places in the mode than there is
    room for: the price of a place where a sum is to be as large as it can at a given cost (Everett 1963, "Generalized
    Lagrange multiplier method for solving problems of optimum allocation of resources"). So whatever is added to all
    scores changes nothing, and the mode is neither all places nor none for want of the right bias. Of `sigmoid` it has
    exactly as many places as there is room for, unless scores are equal. Of `segments` it may lack some, with whose
    pieces it would be too large, and all where scores differ by little beside `stay`. For gradients t is a constant.

    Time as of the over, with `segments` that of 20 modes. Raises ValueError for a share that is not above 0 and up
    to 1, and TypeError for another over.

    >>> from regard import segments
    >>> budget(segments(stay=2.0), share=0.4)(torch.tensor([[7.0, 5.0, 1.0, 3.0, 2.0]])).mode
    tensor([[1, 1, 0, 0, 0]])
    """

    def __init__(self, over: Any, share: float):
        super().__init__()
        check_part("over", over)
        if not 0 < share <= 1:
            raise ValueError(f"budget expected a share above 0 and up to 1, but got {share}.")
        if over is not sigmoid and not isinstance(over, segments | subset):
            raise TypeError(f"budget expected over to be sigmoid, segments or subset, but got {over}.")
        self.over, self.share = over, share

    def forward(self, scores: Scores, mask: Mask = None) -> Positions:
        positions: Any = self.over(scores, mask)
        if isinstance(positions, Subset):
            k = min(positions.k, self._room(scores.shape[-1]))
            return Subset(positions.scores, k, self._rooms(positions.scores > -math.inf))
        threshold: Any = self._price if isinstance(positions, Segments) else self._rank
        return self.over(scores - threshold(positions).detach(), mask)

    def _rank(self, positions: Independent) -> Float[Tensor, "*B Q 1"]:
        """Halfway between the score of the last place that there is room for and the next."""
        scores = positions.scores
        ranked = F.pad(scores.sort(-1, descending=True).values, (0, 1), value=-math.inf)
        room = self._rooms(scores > -math.inf).unsqueeze(-1).clamp(max=scores.shape[-1])
        last, after = ranked.gather(-1, room - 1), ranked.gather(-1, room)
        return torch.where(after > -math.inf, (last + after) / 2, last - 1).nan_to_num(neginf=0.0)

    @torch.no_grad()
    def _price(self, positions: Segments) -> Float[Tensor, "*B Q 1"]:
        """The least that leaves room, by bisection: above the one end the mode has no place, below the other all."""
        scores, possible = positions.scores, positions.present & (positions.scores > -math.inf)
        room, reach = self._rooms(possible).unsqueeze(-1), 1 + 2 * positions.stay.abs().unsqueeze(-1)
        high = scores.masked_fill(~possible, -math.inf).amax(-1, keepdim=True).nan_to_num(neginf=0.0) + reach
        low = scores.masked_fill(~possible, math.inf).amin(-1, keepdim=True).nan_to_num(posinf=0.0) - reach
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = replace(positions, scores=scores - middle)
            many = above.indicator(above.mode).sum(-1, keepdim=True) > room
            low, high = torch.where(many, middle, low), torch.where(many, high, middle)
        return high

    def _rooms(self, possible: Bool[Tensor, "*B Q K"]) -> Int[Tensor, "*B Q"]:
        """For how many places of each query there is room."""
        return (self.share * possible.sum(-1).double() + TINY).floor().clamp(min=1).long()

    def _room(self, places: int) -> int:
        return max(1, math.floor(self.share * places + TINY))

    def extra_repr(self) -> str:
        named = "" if isinstance(self.over, nn.Module) else f"{getattr(self.over, '__name__', self.over)}, "
        return f"{named}share={self.share}"
