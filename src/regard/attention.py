"""Attention is a distribution over where to look: c = E_{z ~ p(z | query, keys)} [ read(values, z) ].

A **score** says how well each key fits the query, an **over** makes a distribution of the scores, and a **read** takes
its mean (soft attention), a sample (hard attention) or its mode. Any of the three is swapped without touching the rest.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from regard.checks import check_part
from regard.kernels.registry import find_road
from regard.masks import of_draws
from regard.memory import Memory, check_call, check_shapes, memory_of, queries_of
from regard.over.mappings import Over, softmax
from regard.plots import png
from regard.positions import OneHot, Positions
from regard.positions.base import exported
from regard.protocol import State, Step, at, carries, carry
from regard.reads import hard, mean, weighed
from regard.scores import compare, scaled_dot
from regard.summary import Summary, joined, summary_of

FIRST = State()
"""What the first step is handed."""
BLOCK = 1 << 20
"""Scores that a summary forms at a time."""


class Asked(NamedTuple):
    """What a distribution can be formed of that a fast road did not form."""

    query: Tensor
    memory: Memory
    score: Any
    over: Any
    training: bool


@exported
@dataclass(eq=False, repr=False)
class Attended:
    """What an attention read, and where it looked."""

    context: Float[Tensor, "*B Q V"]
    """What was read."""
    z: Any = None
    """The event that was drawn or chosen, as indices; None for a mean."""
    log_prob: Any = None
    """Of z, with the batch shape of the positions: (*B, Q), or (*B) where one event spans the queries."""
    state: State | None = None
    """What carrying parts hand to the next step."""
    formed: Positions | None = None
    """The distribution, where it has been formed: ask for `positions`."""
    asked: Asked | None = None
    """What it can be formed of, where it has not."""
    dense: Tensor | None = None
    """The weights, where they were formed with the context: ask for `weights`."""

    @property
    def positions(self) -> Positions:
        """The distribution over where to look; after a fast road it is formed when first asked for."""
        if self.formed is None:
            if self.asked is None:
                raise ValueError("positions expected to be asked for before detach(), which drops query and keys.")
            query, memory, score, over, training = self.asked
            self.formed = _positions(query, memory, score, over, training)
        return self.formed

    @property
    def weights(self) -> Float[Tensor, "*B Q K"]:
        """Where it looked, the mean of the distribution: dense, computed when asked for, or with the context."""
        return self.positions.mean if self.dense is None else self.dense

    @torch.no_grad()
    def summary(self, top: int = 1) -> Summary:
        """The entropy, the largest weights and their places, the sums of columns (coverage) and the log-sum-exp.

        After a fast road it is computed from some queries at a time, so that their weights on all the keys are never
        there at once: time O(Q K D), memory O(Q + K). Raises ValueError if top is below one.

        >>> out = attend(torch.ones(1, 2), torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.ones(2, 1))
        >>> out.summary().places, out.summary().weights
        (tensor([[1]]), tensor([[0.9442]]))
        """
        if self.formed is not None or self.asked is None or self.asked.over is not softmax or 0 in self.context.shape:
            return summary_of(self.positions, top)
        query, memory, score, over, training = self.asked
        size = max(1, BLOCK // (math.prod((*query.shape[:-2], memory.keys.shape[-2]))))
        return joined(
            [summary_of(_positions(*rows, score, over, training), top) for rows in queries_of(query, memory, size)]
        )

    def __repr__(self) -> str:
        """Its shapes, in a line.

        >>> attend(torch.ones(2, 4), torch.ones(3, 4), torch.ones(3, 5))
        Attended(context=(2, 5), over=softmax)
        """
        shapes = {name: getattr(self, name) for name in ("context", "z", "log_prob", "dense")}
        said = [f"{name}={tuple(each.shape)}" for name, each in shapes.items() if isinstance(each, Tensor)]
        over = type(self.formed).__name__ if self.formed is not None else _named(self.asked and self.asked.over)
        return f"Attended({', '.join([*said, f'over={over}'])})"

    def _repr_png_(self) -> bytes | None:
        """In a notebook, the picture of `regard.plot`."""
        return png(self)

    def detach(self) -> "Attended":
        """The same without the graph, and without the query and keys of which weights not yet formed would be made."""
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, replace(self, asked=None))


def _named(over: Any) -> str:
    return getattr(over, "__name__", type(over).__name__)


def attend(
    query: Float[Tensor, "*SB Q Dq"],
    keys: Float[Tensor, "*B K Dk"],
    values: Any,
    *,
    score: Callable[[Tensor, Tensor], Tensor] = scaled_dot,
    over: Any = softmax,
    read: Any = mean,
    mask: Bool[Tensor, "..."] | None = None,
    training: bool = True,
    state: State | None = None,
    weights: bool = False,
) -> Attended:
    """Attends to the values by how the keys fit the query: c = E_{z ~ over(score(query, keys))} [read(values, z)].

    The Q queries of one call are consecutive steps. The query may have draws in front, (S, *B, Q, Dq).

    Args:
        query: (*B, Q, Dq).
        keys: (*B, K, Dk).
        values: (*B, K, V), or anything with `.read(z)`, which maps the indices of N places a row, (*S, *B, N), to
            what lies there, (*S, *B, N, V). Where draws stand in front of the query, they do of z; it is never -1.
            If it has a `block`, such as `Patches`, a mean reads so many places at a time.

    Keyword Args:
        score: how well a key fits the query, a part of `regard.scores`.
        over: the distribution that scores make, a part of `regard.over.mappings`.
        read: mean, sample or mode, a part of `regard.reads`.
        mask: bool, True = may be looked at, with the rank of the scores (sizes equal or one) or (Q, K), which is best
            written `causal(n)[None]`: where a batch of B equals Q, (Q, K) could be the padding (B, K), and is refused.
            A query that may look at nothing reads zero.
        training: whether parts that behave differently in training are in training.
        state: what the step before handed on, `out.state`.
        weights: whether `out.weights` are wanted too: they are then formed with the context, in one pass, and else
            when they are asked for, which after a fast road computes the scores once more.

    Raises ValueError for shapes that do not fit, for no keys, and TypeError for what is not a part, such as a class
    that was not called, and for a mask that is not bool. NaN in the
    scores propagates; under `torch.autograd.set_detect_anomaly` it raises ValueError where the scores are formed.

    >>> out = attend(torch.ones(1, 2), torch.ones(3, 2), torch.arange(3.0).unsqueeze(-1))
    >>> out.context, out.weights
    (tensor([[1.]]), tensor([[0.3333, 0.3333, 0.3333]]))
    """
    parts = _checked(score, over, read, training)
    return _attend(parts, query, memory_of(score, keys, values, mask), state, weights)


class Attention(nn.Module):
    """Attention with its three parts as a module, for a memory that is looked at many times.

    `attention.prepare(keys, values, mask)` lets the score do once what does not depend on the query;
    `attention(query, memory)` then equals `attend(query, keys, values, ...)` with the parts of the module.

    >>> from regard import Additive
    >>> attention = Attention(score=Additive(query_dim=2, key_dim=3, hidden_dim=4), read=hard)
    >>> memory = attention.prepare(torch.ones(5, 3), torch.ones(5, 6))
    >>> out = attention(torch.ones(1, 2), memory)
    >>> out.context.shape, out.z.shape, out.log_prob.shape
    (torch.Size([1, 6]), torch.Size([1]), torch.Size([1]))
    """

    def __init__(self, score: Any = scaled_dot, over: Any = softmax, read: Any = mean):
        super().__init__()
        self.score, self.over, self.read, _ = _checked(score, over, read, True)

    def prepare(self, keys: Float[Tensor, "*B K Dk"], values: Any, mask: Bool[Tensor, "..."] | None = None) -> Memory:
        """The memory of these keys and values; shapes and errors as in `attend`."""
        return memory_of(self.score, keys, values, mask)

    def forward(
        self, query: Float[Tensor, "*SB Q Dq"], memory: Memory, state: State | None = None, weights: bool = False
    ) -> Attended:
        parts = _Parts(self.score, self.over, self.read, self.training)
        return _attend(parts, query, memory, state, weights)

    def extra_repr(self) -> str:
        plain = {name: part for name, part in vars(self).items() if name in ("score", "over", "read")}
        return ", ".join(f"{name}={getattr(part, '__name__', part)}" for name, part in plain.items())


def look(
    query: Any, policy: Callable[[Any], Positions], sensor: Any, read: Any = hard, training: bool = True
) -> Attended:
    """A glimpse: the policy says where to look, and the sensor reads there (Mnih et al. 2014, section 3.1).

    `policy(query)` is a distribution over locations, such as `Coordinate`, from a query that may be anything that the
    policy understands; the sensor has `.read(z)`, such as `Glimpses`. Returns an `Attended` whose context is what the
    sensor read.

    >>> from regard import Coordinate, Glimpses
    >>> images = Glimpses(torch.rand(2, 1, 28, 28), size=8, scales=1)
    >>> seen = look(torch.zeros(2, 2), lambda centre: Coordinate(centre, 0.1), images)
    >>> seen.z.shape, seen.context.shape
    (torch.Size([2, 2]), torch.Size([2, 1, 1, 8, 8]))
    """
    check_part("read", read)
    positions = policy(query)
    step = Step(query, None, training=training)
    context, z, log_prob = at(read, step)(positions, sensor)
    return Attended(context, z, log_prob, formed=positions)


class _Parts(NamedTuple):
    """The three parts, and whether they are in training."""

    score: Any
    over: Any
    read: Any
    training: bool


def _checked(score: Any, over: Any, read: Any, training: bool) -> _Parts:
    for role, part in (("score", score), ("over", over), ("read", read)):
        check_part(role, part)
    return _Parts(score, over, read, training)


def _attend(parts: _Parts, query: Tensor, memory: Memory, state: State | None, weights: bool) -> Attended:
    score, over, read, training = parts
    check_call(query, memory, state)
    check_shapes(score, query, memory)
    if query.shape[-2] > 1 and carries(score):
        return _one_by_one(parts, query, memory, state)
    carried = state or FIRST
    given = query, memory.keys, memory.mask
    now = over.at(Step(*given, carried.over, training)) if hasattr(over, "at") else over
    if hasattr(read, "at"):
        read = read.at(Step(*given, None, training))
    elif weights and read is mean:
        read = weighed
    lazy = not weights or read is weighed
    run = find_road((score, now, read), query, memory.keys, memory.values, memory.mask) if lazy else None
    if run is not None:
        out = _attended(run(query, memory.keys, memory.values, memory.mask), Asked(query, memory, score, now, training))
        if carries(over):
            if out.dense is not None:
                out.formed = OneHot(weights=out.dense)
            seen = out.formed or OneHot(scores=query[..., :0])  # how many queries there were, or it had no such road
            out.state = State(None, carry(over, carried.over, seen))
        return out
    positions = _positions(query, memory, score, now, training, carried.score)
    out = _attended(read(positions, memory.values))
    out.formed = positions
    if carries(score) or carries(over):
        seen = positions if out.z is None else positions.given(out.z)
        out.state = State(carry(score, carried.score, seen), carry(over, carried.over, seen))
    return out


def _attended(found: tuple, asked: Asked | None = None) -> Attended:
    """What a read gave: context, z and log_prob, and the weights if they were formed with it."""
    context, z, log_prob, *dense = found
    return Attended(context, z, log_prob, asked=asked, dense=dense[0] if dense else None)


def _positions(query: Tensor, memory: Memory, score, over: Over, training: bool, carried: Any = None) -> Positions:
    """The distribution, by an over that is what it is at this step."""
    run = find_road((score, over), query, memory.keys, memory.mask)
    if run is not None:
        return run(query, memory.keys, memory.mask)
    step = Step(query, memory.keys, memory.mask, carried, training)
    scores = compare(at(score, step), query, memory.keys)
    if not torch.compiler.is_compiling() and torch.is_anomaly_enabled() and scores.isnan().any():
        raise ValueError("scores expected numbers, but got NaN (which is looked for as anomaly detection is on).")
    return over(scores, None if memory.mask is None else of_draws(memory.mask, scores.dim()))


def _one_by_one(parts: _Parts, query: Tensor, memory: Memory, state: State | None) -> Attended:
    """The queries one after another, for a score that depends on where the query before it looked."""
    outs = []
    for one, seen in queries_of(query, memory, 1):
        outs.append(_attend(parts, one, seen, state, weights=False))
        state = outs[-1].state
    first, *later = (out.positions for out in outs)
    apart = (replace(out, state=None, formed=None, asked=None) for out in outs)
    return replace(tree_map(partial(_join, query.dim() - 2), *apart), state=state, formed=first.then(*later))


def _join(dim: int, *leaves: Any) -> Any:
    """One after the other along the queries; the log-probabilities of events that span them are summed."""
    if not isinstance(leaves[0], Tensor):
        return leaves[0]
    return torch.cat(leaves, dim) if leaves[0].dim() > dim else torch.stack(leaves).sum(0)
