"""One place for each query, and never one before that of the query before: monotonic alignments."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import register_kl

from regard.positions.algorithms.recurrence import NEVER, expected_alignment, log_recurrence
from regard.positions.base import INFINITY, Positions, exported, take, wide
from regard.positions.independent import coins, expected_log_prob
from regard.positions.onehot import OneHot
from regard.positions.several import check_enumerable

SURE = 1e5
"""Log-chances below this are cut off where only the best alignment is looked for: it has none of them."""


@exported
@dataclass(eq=False, repr=False)
class Alignment(Positions):
    """Alignments of Q queries that only go forward: each query walks on from the place where the one before it
    stopped, and stops at a place with the probability p = sigmoid(score), or passes the end.

    p(z_i = k | z_{i-1} = j) = p_{i,k} prod_{l=j}^{k-1} (1 - p_{i,l}) for k >= j (Raffel et al. 2017, equation 9)

    One event spans the queries: the places where they stop, in no descending order, and -1, nowhere, from the query on
    that passed the end. A score of -inf is a place that is always passed. `start` is the distribution of the place from
    which the first query walks on, a row that may sum to less than one; by default it is the first place.

    Shapes: scores (*B, Q, K), start (*B, K); batch_shape (*B), event_shape (Q,). `mean`, `entropy`, `kl` and `mode`
    take O(Q K) and Q steps of log2 K, or one fused loop where there is a kernel; `sample` and `log_prob` O(Q K) a draw;
    `gather` O(Q). Raises ValueError for no queries.

    >>> positions = Alignment(torch.zeros(2, 3))
    >>> positions.mean
    tensor([[0.5000, 0.2500, 0.1250],
            [0.2500, 0.2500, 0.1875]])
    >>> positions.log_prob(torch.tensor([[0, 1], [2, -1], [1, 0]])).exp()
    tensor([0.1250, 0.0625, 0.0000])
    """

    scores: Float[Tensor, "*B Q K"]
    start: Any = None

    has_enumerate_support = True

    def __post_init__(self) -> None:
        *batch, queries, _ = self.scores.shape
        if queries == 0:
            raise ValueError(f"Alignment expected scores of at least one query, but got {tuple(self.scores.shape)}.")
        if self.start is None:
            self.start = self._first_place(batch)
        super().__init__(torch.Size(batch), torch.Size([queries]), validate_args=False)

    @property
    def stops(self) -> "Alignment":
        """The distribution of the places where the queries stop, apart from what they read there."""
        return Alignment(self.scores, self.start)

    @property
    def last(self) -> Float[Tensor, "*B K"]:
        """Where the last query stops, from where later ones walk on; in float32 at least."""
        return self._stopping[..., -1, :]

    @property
    def mean(self) -> Float[Tensor, "*B Q K"]:
        """The probability that each query stops at each place, the expected alignment."""
        return self._stopping.to(self.scores.dtype)

    @property
    def mode(self) -> Int[Tensor, "*B Q"]:
        """The most probable alignment, by Viterbi's algorithm. It knows all queries; `online` is what a decoder does
        that knows but those so far."""
        with torch.no_grad():
            log_stop, log_go = (each.double().clamp(min=-SURE) for each in self._log_chances)
            log_stop = log_stop.masked_fill(self._log_chances[0] == -INFINITY, -INFINITY)
            passed = F.pad(log_go.cumsum(-1), (1, 0))  # (*B, Q, K + 1)
            best, came_from = self._first.log_weights[..., 0, :-1].double(), []
            for query in range(1, self.scores.shape[-2]):
                ahead = (best - passed[..., query, :]).cummax(-1)
                best = ahead.values + passed[..., query, :] + log_stop[..., query, :]
                came_from.append(ahead.indices)
            z = [best.argmax(-1, keepdim=True)]
            for indices in reversed(came_from):
                z.append(indices.gather(-1, z[-1]))
            return self._named(torch.cat(z[::-1], -1))

    @property
    def online(self) -> Int[Tensor, "*B Q"]:
        """Where a decoder stops that knows no query after the one at hand: at the first place, from where it stopped
        last, that it would rather stop at than pass, p >= 1/2 (Raffel et al. 2017, section 2.2)."""
        return self._named(_walk(self.scores >= 0, self._from(self._origin.mode)))

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Int[Tensor, "*SB Q"]:
        """An alignment, drawn by walking: each query stops at the next place at which its coin says so."""
        with torch.no_grad():
            start = self._origin.sample(sample_shape)
            return self._named(_walk(coins(self._wide_scores, sample_shape), self._from(start)))

    def log_prob(self, value: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB"]:
        """The log-probability of the alignment, -inf where it goes back, or stops where it may not."""
        z = self._from(value)
        (log_stop, log_go), before, after = self._log_chances, z[..., :-1, None], z[..., 1:, None]
        here = torch.arange(self.scores.shape[-1], device=z.device)
        passed = (here >= before) & (here < after)  # (*S, *B, Q - 1, K)
        log_prob = take(log_stop[..., 1:, :], after, -1).squeeze(-1)
        log_prob = log_prob + torch.where(passed, log_go[..., 1:, :], 0).sum(-1)
        log_prob = log_prob.masked_fill((after < before).squeeze(-1), -INFINITY)
        first = take(self._first.log_weights.squeeze(-2), z[..., :1], -1).squeeze(-1)
        return (first + log_prob.sum(-1)).to(self.scores.dtype)

    def entropy(self) -> Float[Tensor, "*B"]:
        """The entropy, in nats: that of the first stop, and of all coins after it that are expected to be tossed."""
        return (self._first.entropy().squeeze(-1) - self._expected_log_prob(self)).to(self.scores.dtype)

    def indicator(self, z: Int[Tensor, "*SB Q"]) -> Float[Tensor, "*SB Q K"]:
        """The places as a 0/1 tensor: a row of zeros for nowhere."""
        return (z.unsqueeze(-1) == torch.arange(self.scores.shape[-1], device=z.device)).to(self.scores.dtype)

    def enumerate_support(self, expand: bool = True) -> Int[Tensor, "E *B Q"]:
        """Every alignment, in lexical order; nowhere comes after all places."""
        queries, places = self.scores.shape[-2:]
        check_enumerable(math.comb(places + queries, queries))
        events = list(itertools.combinations_with_replacement(range(places + 1), queries))
        support = self._named(torch.tensor(events, device=self.scores.device))
        support = support.view(-1, *(1 for _ in self.batch_shape), queries)
        return support.expand(-1, *self.batch_shape, queries) if expand else support

    def given(self, z: Int[Tensor, "*SB Q"]) -> "Alignment":
        """The alignment that surely is z."""
        here = self.stops.indicator(z) > 0
        sure = torch.full_like(self.scores, INFINITY).where(here, -INFINITY)
        return replace(self, scores=sure, start=self._first_place(z.shape[:-1]))

    def then(self, *later: "Alignment") -> "Alignment":
        """The alignment of the queries of this and of the later ones, which go on from it."""
        return replace(self, scores=torch.cat([each.scores for each in (self, *later)], -2))

    @property
    def _wide_scores(self) -> Tensor:
        return wide(self.scores)

    def _first_place(self, batch: Sequence[int]) -> Tensor:
        return F.pad(self.scores.new_ones(*batch, 1), (0, self.scores.shape[-1] - 1))  # (*B, K)

    @property
    def _stopping(self) -> Tensor:
        scores = self._wide_scores
        return expected_alignment(scores.sigmoid(), (-scores).sigmoid(), self.start.to(scores.dtype))

    @property
    def _log_chances(self) -> tuple[Tensor, Tensor]:
        """The log-chances (*B, Q, K + 1) to stop at each place and, last, at the end; and (*B, Q, K) to go on."""
        scores = self._wide_scores
        return F.pad(F.logsigmoid(scores), (0, 1)), F.logsigmoid(-scores)

    @property
    def _origin(self) -> OneHot:
        """The place, (*B, 1), from which the first query walks on."""
        return OneHot(weights=self.start.unsqueeze(-2))

    @property
    def _first(self) -> OneHot:
        """Where the first query stops, (*B, 1): K + 1 places, the last of which is nowhere."""
        log_stop, log_go = (each[..., :1, :].clamp(min=NEVER) for each in self._log_chances)
        log_start = self._origin.log_weights.to(log_go.dtype)
        reached = log_recurrence(F.pad(log_go, (1, 0)), log_start.clamp(min=NEVER))
        log_prob = reached + log_stop
        return OneHot(scores=log_prob.masked_fill(log_prob <= NEVER / 2, -INFINITY))

    def _expected_log_prob(self, other: "Alignment") -> Tensor:
        """The mean of the other's log-probability, under this distribution, of all queries after the first."""
        stopping, go = self._stopping, (-self._wide_scores[..., 1:, :]).sigmoid()
        tossed = expected_alignment(torch.ones_like(go).unsqueeze(-2), go.unsqueeze(-2), stopping[..., :-1, :])
        passed = tossed.squeeze(-2) * go
        return expected_log_prob(other._wide_scores[..., 1:, :], passed, stopping[..., 1:, :]).sum(-1)

    def _from(self, z: Tensor) -> Tensor:
        """The event with nowhere as the place after the last."""
        return z.remainder(self.scores.shape[-1] + 1)

    def _named(self, z: Tensor) -> Tensor:
        """The event with -1 for nowhere."""
        return z.masked_fill(z == self.scores.shape[-1], -1)


def _walk(stops: Tensor, place: Tensor) -> Tensor:
    """From a place (*B, 1) to the next one whose stop (*B, Q, K) is True, for every query in turn; K where there is
    none."""
    places = stops.shape[-1]
    here = torch.arange(places + 1, device=stops.device)
    nearest = here.where(F.pad(stops, (0, 1), value=True), places).flip(-1).cummin(-1).values.flip(-1)
    z = [place]
    for query in range(stops.shape[-2]):
        z.append(nearest[..., query, :].gather(-1, z[-1]))
    return torch.cat(z[1:], -1)


@register_kl(Alignment, Alignment)
def _kl_alignment_alignment(p: Alignment, q: Alignment) -> Tensor:
    later = p._expected_log_prob(p) - p._expected_log_prob(q)
    return (p._first.kl(q._first).squeeze(-1) + later).to(p.scores.dtype)
