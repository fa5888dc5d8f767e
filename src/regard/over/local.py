"""Windows round a centre: local attention (Luong et al. 2015, section 3.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.masks import checked
from regard.over.mappings import Mask, Over, Scores, masked
from regard.positions import OneHot, Positions
from regard.protocol import Step


class Predicted(nn.Module):
    """A centre predicted from the query, S sigmoid(v . tanh(W q)) (Luong et al. 2015, equation 9).

    S is the number of places that may be looked at, (*B, Q) or a number; the centre, (*B, Q), counts places from zero.

    >>> Predicted(query_dim=3, hidden_dim=4)(torch.zeros(2, 3), places=10).tolist()
    [5.0, 5.0]
    """

    def __init__(self, query_dim: int, hidden_dim: int):
        super().__init__()
        self.query = nn.Linear(query_dim, hidden_dim, bias=False)
        self.position = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, query: Float[Tensor, "*B Q Dq"], places: Tensor | int) -> Float[Tensor, "*B Q"]:
        return places * self.position(self.query(query).tanh()).squeeze(-1).sigmoid()


class local(nn.Module):
    """One place, a softmax over a window of 2 radius + 1 places round a centre (Luong et al. 2015, section 3.2).

    Without `centre` the window moves on by one place a query (local-m): the centre of query t is place t, counted on
    from call to call by the state. A call without a state is the first: a decoder that asks one query at a time hands
    `out.state` on, or says where it is, at place t, by `state=State(over=t)`.

    With `centre`, a module of (query, places) such as `Predicted`, the weights are multiplied by
    exp(-(k - p)^2 / (2 sigma^2)) with sigma = radius / 2 (local-p, equation 10); what they then lack to one is the
    probability of nowhere. Time and memory O(Q w D) for windows of w places among many, else O(Q K D).

    Raises ValueError unless the radius is at least one.

    >>> from regard import Step
    >>> local(1).at(Step(torch.zeros(3, 2), torch.zeros(4, 2)))(torch.zeros(3, 4), None).mean
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.3333, 0.3333, 0.3333, 0.0000],
            [0.0000, 0.3333, 0.3333, 0.3333]])
    """

    def __init__(self, radius: int, centre: nn.Module | None = None):
        super().__init__()
        if radius < 1:
            raise ValueError(f"local expected a radius of at least 1, but got {radius}.")
        self.radius = radius
        self.centre = centre

    def at(self, step: Step) -> Over:
        if self.centre is None:
            start = 0 if step.carried is None else step.carried
            return MovingWindow(start, self.radius)
        places = step.keys.shape[-2] if step.mask is None else step.mask.sum(-1)
        return GaussianWindow(self.centre(step.query, places), self.radius)

    def next(self, carried: Tensor | int | None, positions: Positions) -> Tensor | None:
        if self.centre is not None:
            return None
        *batch, queries = positions.batch_shape
        return torch.full(batch, queries, device=positions.device) + (0 if carried is None else carried)

    def extra_repr(self) -> str:
        return f"radius={self.radius}"


@dataclass(frozen=True, eq=False)
class MovingWindow:
    """A softmax over the places within the radius of a centre that moves on by one place a query, from `start` (*B)."""

    start: Int[Tensor, "..."] | int
    radius: int

    def __call__(self, scores: Scores, mask: Mask = None) -> OneHot:
        queries, places = scores.shape[-2:]
        inside, mask = self.inside(queries, places, scores.device), checked(mask, scores.shape)
        return OneHot(scores=masked(scores, inside if mask is None else inside & mask))

    def inside(self, queries: int, places: int, device: torch.device) -> Bool[Tensor, "*B Q K"]:
        """Which places lie in the window of each query: each row is the one before, moved on by a place."""
        start = self.start.unsqueeze(-1) if isinstance(self.start, Tensor) else self.start
        offset = torch.arange(1 - queries, places, device=device) - start
        return (offset.abs() <= self.radius).unfold(-1, places, 1).flip(-2)

    def first(self, queries: int, device: torch.device, step: int = 1) -> Int[Tensor, "*B Q"]:
        """The first place of the window of each query, or of each `step` queries."""
        first = torch.arange(-self.radius, queries - self.radius, step, device=device)
        return first + (self.start.unsqueeze(-1) if isinstance(self.start, Tensor) else self.start)


@dataclass(frozen=True, eq=False)
class GaussianWindow:
    """A softmax over the places within the radius of a centre (*B, Q), rounded to a place, times a Gaussian round the
    centre as it is (Luong et al. 2015, equation 10)."""

    centre: Float[Tensor, "..."]
    radius: int

    def __call__(self, scores: Scores, mask: Mask = None) -> OneHot:
        queries, places = scores.shape[-2:]
        first, place = self.first(queries, scores.device).unsqueeze(-1), torch.arange(places, device=scores.device)
        inside, mask = (place >= first) & (place <= first + 2 * self.radius), checked(mask, scores.shape)
        weights = OneHot(scores=masked(scores, inside if mask is None else inside & mask)).mean
        return OneHot(weights=weights * fall(place - self.centre.unsqueeze(-1), self.radius))

    def first(self, queries: int, device: torch.device) -> Int[Tensor, "*B Q"]:
        """The first place of the window of each query; a centre of NaN shows in the fall."""
        return self.centre.nan_to_num().round().long() - self.radius


def fall(offset: Tensor, radius: int) -> Tensor:
    """The Gaussian of local-p, exp(-offset^2 / (2 sigma^2)) with sigma = radius / 2."""
    return torch.exp(-2 * (offset / radius).square())
