"""A budget: how much of the places the most probable event may look at."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.checks import check_part
from regard.over.mappings import Mask, Scores, masked
from regard.positions import Independent, Positions, Segments
from regard.protocol import at

HALVINGS = 30
"""How often the interval in which the threshold lies is halved."""


class budget(nn.Module):
    """`sigmoid` or `segments` above a threshold: over(scores - t), where of each query t is as low as it can be with no
    more than the `share` of the places in the mode, but room for one at least.

    A sum that is maximised with a price t for each place that is taken (Lagrange; Everett 1963, "Generalized Lagrange
    multiplier method for solving problems of optimum allocation of resources"). Whatever is added to all scores, the
    distribution is the same; and a mode is neither all places nor none for want of the right bias. Of `sigmoid` the
    mode has exactly as many places as there is room for, unless scores are equal. Of `segments` it may lack some: those
    by which the next larger mode would be too large, at most a few pieces.

    `share` is above 0, to 1; of n places that may be looked at there is room for max(1, floor(share n)). For gradients
    t is a constant. Time as for the mode, 30 times.

    Raises ValueError for another share, and TypeError where the events are not a label for each place.

    >>> from regard import segments
    >>> budget(segments(stay=2.0), share=0.4)(torch.tensor([[7.0, 5.0, 1.0, 3.0, 2.0]])).mode
    tensor([[1, 1, 0, 0, 0]])
    """

    def __init__(self, over: Any, share: float):
        super().__init__()
        check_part("over", over)
        if not 0 < share <= 1:
            raise ValueError(f"budget expected a share above 0 and up to 1, but got {share}.")
        self.over, self.share = over, share

    def at(self, step: Any) -> "budget":
        """The same over what its over is at this step."""
        now = at(self.over, step)
        return self if now is self.over else budget(now, self.share)

    def forward(self, scores: Scores, mask: Mask = None) -> Positions:
        positions = self.over(scores, mask)
        if not isinstance(positions, Independent | Segments):
            raise TypeError(f"budget expected over to be sigmoid or segments, but it makes {type(positions).__name__}.")
        present = positions.present if isinstance(positions, Segments) else positions.scores != -math.inf
        stay = positions.stay if isinstance(positions, Segments) else torch.zeros_like(scores[..., 0])
        return self.over(scores - self.threshold(scores.detach(), stay.detach(), present, mask), mask)

    @torch.no_grad()
    def threshold(
        self, scores: Scores, stay: Float[Tensor, "*B Q"], present: Bool[Tensor, "*B Q K"], mask: Mask
    ) -> Float[Tensor, "*B Q 1"]:
        """t, by bisection: at its highest the mode is empty, at its lowest it has every place."""
        possible = present & (scores > -math.inf)
        room = (self.share * possible.sum(-1, keepdim=True) + 1e-6).floor().clamp(min=1)
        reach = 1 + 2 * stay.abs().unsqueeze(-1)
        high = scores.masked_fill(~possible, -math.inf).amax(-1, keepdim=True).nan_to_num(neginf=0.0) + reach
        low = scores.masked_fill(~possible, math.inf).amin(-1, keepdim=True).nan_to_num(posinf=0.0) - reach
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            positions = self.over(scores - middle, mask)
            many = positions.indicator(positions.mode).sum(-1, keepdim=True) > room
            low, high = torch.where(many, middle, low), torch.where(many, high, middle)
        return high

    def extra_repr(self) -> str:
        return f"over={getattr(self.over, '__name__', self.over)}, share={self.share}"
