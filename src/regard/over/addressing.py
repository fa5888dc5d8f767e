"""Memory addressing: maps from one distribution over places to another, and the over that is made of them.

Graves et al. 2014, "Neural Turing machines", section 3.3: where a head looks is found by content, mixed with where it
looked before, moved by a few places, and made sharper. Each of the three maps takes a `OneHot` and gives one, and what
is looked at nowhere stays nowhere.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.checks import check_width
from regard.over.mappings import Mask, Over, Scores, masked, softmax
from regard.positions import OneHot, Positions
from regard.positions.base import INFINITY, safe_log, wide
from regard.positions.onehot import lack
from regard.protocol import Step


def interpolate(positions: OneHot, before: OneHot, gate: Float[Tensor, "*B Q"]) -> OneHot:
    """One distribution mixed with another, g w + (1 - g) w' (Graves et al. 2014, equation 7).

    `before` are the positions w' that a gate g of zero leaves; gates are between 0 and 1. O(Q K).

    >>> found, before = OneHot(weights=torch.tensor([[1.0, 0.0]])), OneHot(weights=torch.tensor([[0.0, 1.0]]))
    >>> interpolate(found, before, torch.tensor([0.25])).mean
    tensor([[0.2500, 0.7500]])
    """
    return OneHot(weights=torch.lerp(before.mean, positions.mean, gate.unsqueeze(-1)))


def shift(positions: OneHot, moves: Float[Tensor, "*B Q W"], circular: bool = True) -> OneHot:
    """The distribution after a move by one of W numbers of places, sum_j m_j w_(k - j) (Graves et al. 2014, eq. 8).

    `moves` are the probabilities of the `offsets(W)`: of -1, 0 and 1 for W = 3, of 0 and 1 for W = 2. The last place is
    followed by the first; or, unless `circular`, what moves beyond the first or the last place is nowhere. O(Q K W).

    >>> shift(OneHot(weights=torch.tensor([[0.0, 0.0, 1.0]])), torch.tensor([[0.0, 0.25, 0.75]])).mean
    tensor([[0.7500, 0.0000, 0.2500]])
    """
    weights, width = positions.mean, moves.shape[-1]
    back, forth = (width - 1) // 2, width // 2
    places = torch.arange(-forth, weights.shape[-1] + back, device=weights.device) % weights.shape[-1]
    around = weights.index_select(-1, places) if circular else F.pad(weights, (forth, back))  # (*B, Q, K + W - 1)
    moved = around.unfold(-1, width, 1) @ moves.flip(-1).unsqueeze(-1)  # (*B, Q, K, 1)
    return OneHot(weights=moved.squeeze(-1).to(weights.dtype))


def offsets(width: int) -> Tensor:
    """By how many places each of `width` moves goes: as many back as forward, or for an even width one more forward.

    >>> offsets(3), offsets(4)
    (tensor([-1,  0,  1]), tensor([-1,  0,  1,  2]))
    """
    return torch.arange(width) - (width - 1) // 2


def sharpen(positions: OneHot, power: Float[Tensor, "*B Q"]) -> OneHot:
    """The distribution with every probability raised to a power, w_k^gamma / sum_j w_j^gamma, nowhere among them
    (Graves et al. 2014, equation 9).

    It is computed from logarithms, in float32 at least, so that a large power loses nothing; what is impossible stays
    so, and has a gradient of zero. Powers are positive, and above one they sharpen. O(Q K).

    >>> sharpen(OneHot(weights=torch.tensor([[0.75, 0.25]])), torch.tensor([2.0])).mean
    tensor([[0.9000, 0.1000]])
    """
    weights = positions.mean
    log_weights = safe_log(wide(torch.cat((weights, lack(weights)), -1)))
    impossible = log_weights == -INFINITY
    raised = (log_weights.masked_fill(impossible, 0) * wide(power).unsqueeze(-1)).masked_fill(impossible, -INFINITY)
    return OneHot(weights=raised.softmax(-1)[..., :-1].to(weights.dtype))


class addressing(nn.Module):
    """One place by content, then by where the query before looked: `softmax`, then `interpolate`, `shift` and
    `sharpen`, each by a gate that is read off the query (Graves et al. 2014, section 3.3 and figure 2).

    The gate g = sigmoid(a . q), the moves m = softmax(M q) over the `offsets` of `width` places, and the power
    gamma = 1 + softplus(b . q); `gates` holds a, M and b, in this order. Queries are consecutive steps. The state
    is where the last query looked, (*B, K); before the first it was at the first place. A place that the mask hides
    is never looked at: what would come to lie there is nowhere. Time O(Q K W).

    Raises ValueError unless the width is at least one, and for queries of another size than `query_dim`.

    >>> from regard import Attention, Content
    >>> head = Attention(Content(query_dim=3, key_dim=5), addressing(query_dim=3))
    >>> out = head(torch.zeros(1, 3), head.prepare(torch.randn(8, 5), torch.randn(8, 5)))
    >>> out.weights.shape, out.state.over.shape
    (torch.Size([1, 8]), torch.Size([8]))
    """

    def __init__(self, query_dim: int, width: int = 3, circular: bool = True):
        super().__init__()
        if width < 1:
            raise ValueError(f"addressing expected moves by a width of at least 1 place, but got {width}.")
        self.width, self.circular = width, circular
        self.gates = nn.Linear(query_dim, width + 2)

    def at(self, step: Step) -> Over:
        check_width("query", step.query, self.gates.in_features, "the query_dim of addressing")
        return Addressed(self.gates, step.query, step.carried, self.circular)

    def next(self, carried: Float[Tensor, "*B K"] | None, positions: Positions) -> Float[Tensor, "*B K"] | None:
        weights = positions.mean
        if weights.shape[-2] == 1:
            return weights.squeeze(-2)  # as below, but a gradient that is not copied
        return weights[..., -1, :] if weights.shape[-2] else carried

    def extra_repr(self) -> str:
        return f"width={self.width}, circular={self.circular}"


@dataclass(frozen=True, eq=False)
class Addressed:
    """`addressing` with what its gates (*B, Q, W + 2) are read off, and where the query before looked, (*B, K)."""

    gates: nn.Module
    query: Float[Tensor, "..."]
    before: Float[Tensor, "..."] | None
    circular: bool

    def __call__(self, scores: Scores, mask: Mask = None) -> OneHot:
        found = softmax(scores, mask)
        gates = self.gates(self.query).to(found.mean.dtype)
        gate, moves, power = gates.split((1, gates.shape[-1] - 2, 1), -1)
        gate, moves, power = gate.sigmoid(), moves.softmax(-1), 1 + F.softplus(power)
        each = (found.mean, masked(scores, mask) == -INFINITY, gate, moves, power)
        before, steps = self._first(scores), []
        for step in zip(*(part.split(1, -2) for part in each), strict=True):
            steps.append(self._step(before, *step))
            before = steps[-1]
        return OneHot(weights=torch.cat([step.mean for step in steps], -2))

    def _step(
        self, before: OneHot, weights: Tensor, hidden: Tensor, gate: Tensor, moves: Tensor, power: Tensor
    ) -> OneHot:
        mixed = interpolate(OneHot(weights=weights), before, gate.squeeze(-1))
        moved = shift(mixed, moves, self.circular).mean.masked_fill(hidden, 0)
        return sharpen(OneHot(weights=moved), power.squeeze(-1))

    def _first(self, scores: Scores) -> OneHot:
        """Where the query before the first looked."""
        before = self.before
        if before is None:
            before = first_place(scores.new_zeros(*scores.shape[:-2], scores.shape[-1]))
        return OneHot(weights=before.to(scores.dtype).expand(*scores.shape[:-2], -1).unsqueeze(-2))


def first_place(like: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """The weights that are all at the first place, of this shape."""
    weights = torch.zeros_like(like)
    weights[..., 0] = 1
    return weights
